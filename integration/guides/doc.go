// Package guides has the code of the pages of this repository, one folder for each, and the
// tests that hold the pages against it.
package guides
