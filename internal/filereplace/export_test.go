package filereplace

// Rename is rename on a system that says busy for a file which somebody has open.
func Rename(busy error, how func(from, to string) error) error {
	return rename("from", "to", how, func(err error) bool { return err == busy })
}
