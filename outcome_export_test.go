package admit

// NewKinds returns what gives each name of observers a bit of its own, apart from that of the
// process.
func NewKinds() func(name string) uint64 { return new(kinds).kind }
