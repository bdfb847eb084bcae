package gate

// Remembered is of how many priorities it is known when they turned somebody away.
func (g *Gate) Remembered() int { return len(g.shedAt) }
