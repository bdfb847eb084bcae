package gate

import "time"

// pace measures how many requests are admitted and shed.
type pace struct {
	at        time.Duration // when the current second began
	from, now Stats         // at the beginning of the previous second, and of this one
}

func (p *pace) look(now time.Duration, s Stats) {
	if now-p.at >= time.Second {
		p.at, p.from, p.now = now, p.now, s
	}
}

// backlog returns how long it takes to admit as many requests as were shed in a second, measured
// over the current second and the one before. After a long time without shedding it is short at
// first.
func (p *pace) backlog(s Stats) time.Duration {
	shed, admitted := s.Shed-p.from.Shed, s.Admitted-p.from.Admitted
	return time.Duration(float64(time.Second) * float64(shed) / float64(max(admitted, 1)))
}
