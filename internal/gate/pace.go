package gate

import "time"

// pace says how the places get along with those who want one.
type pace struct {
	at        time.Duration // when this second began
	from, now Stats         // as the one before it began, and this one
}

func (p *pace) look(now time.Duration, s Stats) {
	if now-p.at >= time.Second {
		p.at, p.from, p.now = now, p.now, s
	}
}

// backlog is how long it takes to admit as many as were shed in a second: in this one and
// the one before. After a calm, when nobody was shed for long, it is little at first.
func (p *pace) backlog(s Stats) time.Duration {
	shed, admitted := s.Shed-p.from.Shed, s.Admitted-p.from.Admitted
	return time.Duration(float64(time.Second) * float64(shed) / float64(max(admitted, 1)))
}
