package filewatch

// FollowBy follows with another way to read.
var FollowBy = follow

// Ended is closed when the goroutine of w has ended.
func (w *Watch) Ended() <-chan struct{} { return w.ended }
