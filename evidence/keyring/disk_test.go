package keyring

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"syscall"
)

// simulated is a disk that loses power: what was written and not synced may be
// there, or not, or in part; names that were not synced may be the old ones.
// Bytes stay where they were until they are written over.
type simulated struct {
	names   map[string]*inode
	durable map[string]*inode
	pending []func(map[string]*inode) // changes of names, in their order
	all     []*inode

	calls int
	cut   int // power is lost at this call
	fail  int // this call fails, as on a full or broken disk
	upTo  int // and all that follow, up to this one
}

type inode struct{ now, durable []byte }

// powerCut is what a simulated disk panics with.
type powerCut struct{}

var errFull = &fs.PathError{Op: "write", Path: "simulated", Err: syscall.ENOSPC}

func newSimulated() *simulated {
	return &simulated{names: map[string]*inode{}, durable: map[string]*inode{}}
}

// call counts one call that changes something.
func (s *simulated) call() error {
	s.calls++
	if s.calls == s.cut {
		panic(powerCut{})
	}
	if s.fail > 0 && s.calls >= s.fail && s.calls <= s.upTo {
		return errFull
	}
	return nil
}

func (s *simulated) change(f func(map[string]*inode)) {
	f(s.names)
	s.pending = append(s.pending, f)
}

// crash is what is left after the power was lost.
func (s *simulated) crash(r *rand.Rand) *simulated {
	next := newSimulated()
	for _, f := range s.pending[:r.IntN(len(s.pending)+1)] {
		f(s.durable)
	}
	for _, i := range s.all {
		switch n := len(i.now); r.IntN(3) {
		case 0:
			i.durable = bytes.Clone(i.now)
		case 1: // torn
			at := r.IntN(n + 1)
			torn := append(bytes.Clone(i.now[:at]), i.durable[min(at, len(i.durable)):]...)
			i.durable = torn
		}
		i.now = bytes.Clone(i.durable)
	}
	next.all = s.all
	for name, i := range s.durable {
		next.names[name], next.durable[name] = i, i
	}
	return next
}

// holds says whether bytes are anywhere on the medium, in files or in what was
// removed.
func (s *simulated) holds(b []byte) bool {
	for _, i := range s.all {
		if bytes.Contains(i.durable, b) || bytes.Contains(i.now, b) {
			return true
		}
	}
	return false
}

func (s *simulated) list() (out []string, err error) {
	for name := range s.names {
		out = append(out, name)
	}
	return out, nil
}

func (s *simulated) read(name string) ([]byte, error) {
	if i := s.names[name]; i != nil {
		return bytes.Clone(i.now), nil
	}
	return nil, fs.ErrNotExist
}

func (s *simulated) create(name string) (file, error) {
	if err := s.call(); err != nil {
		return nil, err
	}
	if s.names[name] != nil {
		return nil, fs.ErrExist
	}
	i := &inode{}
	s.all = append(s.all, i)
	s.change(func(m map[string]*inode) { m[name] = i })
	return &simulatedFile{s: s, i: i}, nil
}

func (s *simulated) open(name string) (file, int64, error) {
	i := s.names[name]
	if i == nil {
		return nil, 0, fs.ErrNotExist
	}
	return &simulatedFile{s: s, i: i}, int64(len(i.now)), nil
}

func (s *simulated) rename(from, to string) error {
	if err := s.call(); err != nil {
		return err
	}
	i := s.names[from]
	if i == nil {
		return fs.ErrNotExist
	}
	s.change(func(m map[string]*inode) { delete(m, from); m[to] = i })
	return nil
}

func (s *simulated) remove(name string) error {
	if err := s.call(); err != nil {
		return err
	}
	if s.names[name] == nil {
		return fs.ErrNotExist
	}
	s.change(func(m map[string]*inode) { delete(m, name) })
	return nil
}

func (s *simulated) sync() error {
	if err := s.call(); err != nil {
		return err
	}
	for _, f := range s.pending {
		f(s.durable)
	}
	s.pending = nil
	return nil
}

func (s *simulated) lock(func() bool) (io.Closer, error) { return io.NopCloser(nil), nil }

type simulatedFile struct {
	s      *simulated
	i      *inode
	at     int
	closed bool
}

func (f *simulatedFile) Write(p []byte) (int, error) {
	if err := f.s.call(); err != nil {
		half := p[:len(p)/2] // a full disk takes what fits
		f.put(half)
		return len(half), err
	}
	f.put(p)
	return len(p), nil
}

func (f *simulatedFile) put(p []byte) {
	if need := f.at + len(p); need > len(f.i.now) {
		f.i.now = append(f.i.now, make([]byte, need-len(f.i.now))...)
	}
	copy(f.i.now[f.at:], p)
	f.at += len(p)
}

func (f *simulatedFile) Sync() error {
	if err := f.s.call(); err != nil {
		return err
	}
	f.i.durable = bytes.Clone(f.i.now)
	return nil
}

func (f *simulatedFile) Close() error {
	if f.closed {
		return errors.New("closed twice")
	}
	f.closed = true
	return nil
}
