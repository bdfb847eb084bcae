// Package uploads has the code of docs/uploads.md.
package uploads

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"time"

	"github.com/admit-go/admit"
)

const maxFile = 10 << 20 // bytes of a file in a form

// files keeps what is uploaded in one folder.
type files struct{ root *os.Root }

// slow is the bounds of a client that sends slowly.
var slow = admit.BodyTimeout{
	Grace:   5 * time.Second,  // to the first byte, and between two
	MinRate: 8 << 10,          // bytes a second, after the first Grace
	Max:     30 * time.Minute, // for the whole body
}

func (f *files) handler(slow admit.BodyTimeout) http.Handler {
	upload := admit.Policy{
		MaxBody:     1 << 30, // bytes
		BodyTimeout: slow,
		Timeout:     10 * time.Second, // without the time that the handler waits for the body
	}
	form := upload
	form.MaxBody = maxFile + 64<<10 // the boundaries and headers of the parts count too
	order := upload
	order.MaxBody = 64 << 10
	order.ContentType = []string{"application/json"}

	mux := http.NewServeMux()
	mux.Handle("PUT /files/{name}", upload.Wrap(admit.HandlerFunc(f.put)))
	mux.Handle("POST /files", upload.Wrap(admit.HandlerFunc(f.stream)))
	mux.Handle("POST /reports", form.Wrap(admit.HandlerFunc(f.report)))
	mux.Handle("POST /orders", order.Wrap(admit.HandlerFunc(createOrder)))
	return admit.Policy{}.Wrap(admit.Mux(mux))
}

// put stores the body of the request.
func (f *files) put(w http.ResponseWriter, r *http.Request) error {
	size, err := f.store(r.PathValue("name"), r.Body)
	if err != nil {
		return err
	}
	return admit.Success(w, r, http.StatusCreated, map[string]int64{"size": size})
}

var (
	validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)
	errName   = admit.NewError(http.StatusBadRequest, "The name of a file has 1 to 100 of A-Z a-z 0-9 . _ -")
)

// store writes a file as a whole or not at all.
func (f *files) store(name string, body io.Reader) (int64, error) {
	if !validName.MatchString(name) {
		return 0, errName
	}
	part := "." + rand.Text()
	out, err := f.root.Create(part)
	if err != nil {
		return 0, err
	}
	defer f.root.Remove(part) // fails once it has its name
	size, err := io.Copy(out, body)
	if err = errors.Join(err, out.Close()); err != nil {
		return 0, fmt.Errorf("store %s: %w", name, err) // 413, 408 or 400; 500 if the disk is full
	}
	return size, f.root.Rename(part, name)
}

// errFile has the code body_too_large, as the 413 of MaxBody has.
var errFile = admit.NewError(http.StatusRequestEntityTooLarge, "A file has at most 10 MiB.")

// report takes a form with a file.
func (f *files) report(w http.ResponseWriter, r *http.Request) error {
	if err := admit.ParseForm(r, 1<<20); err != nil {
		return err // 400, 408, 413 or 415
	}
	file, header, err := r.FormFile("report")
	if err != nil {
		return err // 400
	}
	defer file.Close()
	if header.Size > maxFile {
		return errFile
	}
	size, err := f.store(r.PostForm.Get("quarter")+".csv", file)
	if err != nil {
		return err
	}
	return admit.Success(w, r, http.StatusCreated, map[string]any{"name": header.Filename, "size": size})
}

// stream takes a form with files of any size.
func (f *files) stream(w http.ResponseWriter, r *http.Request) error {
	body := &formBody{ReadCloser: r.Body}
	r.Body = body
	parts, err := r.MultipartReader()
	if err != nil {
		return err // 415 or 400
	}
	stored := map[string]int64{}
	for {
		part, err := parts.NextPart()
		if err == io.EOF {
			return admit.Success(w, r, http.StatusCreated, stored)
		}
		if err != nil {
			return body.blame(err)
		}
		size, err := f.store(part.FileName(), &formPart{part, body})
		if err != nil {
			return err
		}
		stored[part.FileName()] = size
	}
}

var errForm = admit.NewError(http.StatusBadRequest, "The form is malformed.")

// formBody keeps the error of the body, which a MultipartReader may hide.
type formBody struct {
	io.ReadCloser
	err error
}

func (b *formBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// blame returns the error of the body, or else 400 for a form that is malformed.
func (b *formBody) blame(err error) error {
	if b.err != nil {
		return b.err
	}
	return errForm.WithCause(err)
}

type formPart struct {
	part io.Reader
	body *formBody
}

func (p *formPart) Read(b []byte) (int, error) {
	n, err := p.part.Read(b)
	if err != nil && err != io.EOF {
		err = p.body.blame(err)
	}
	return n, err
}

type Order struct {
	Article string `json:"article"`
}

func createOrder(w http.ResponseWriter, r *http.Request) error {
	order, err := admit.Decode[Order](r)
	if err != nil {
		return err // 400, 413 or 422
	}
	return admit.Success(w, r, http.StatusCreated, order)
}
