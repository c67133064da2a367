package servers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Restart ends the server if it still runs (Stop) and starts it again at the
// same address, on the files that it left. For a start after a crash, Kill it
// first.
func (s *Server) Restart() error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.relaunch()
}

// RestartEmpty kills the server and starts it again at the same address as if
// it had lost its disk: it knows who it is (Program.Keep) and nothing else.
func (s *Server) RestartEmpty() error {
	s.Kill()
	if err := s.forget(); err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	return s.relaunch()
}

// RestartFrom kills the server and starts it again at the same address on the
// files that Image saved: rolled back to what it knew then.
func (s *Server) RestartFrom(image string) error {
	s.Kill()
	err := s.forget()
	if err == nil {
		err = copyFiles(s.Dir, image, s.keeps)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	return s.relaunch()
}

// Image copies the server's files into dir, which it makes: what a crash at
// this instant would leave behind, as a running server stands still meanwhile.
// (Not for one that is paused: it would go on afterwards.)
func (s *Server) Image(dir string) error {
	s.Pause()
	defer s.Resume()
	if err := copyFiles(dir, s.Dir, s.keeps); err != nil {
		return fmt.Errorf("image of %s: %w", s.Name, err)
	}
	return nil
}

// relaunch is launch at an address that was ours and may, for a moment, be in
// the hands of a connection that somebody opened from it.
func (s *Server) relaunch() (err error) {
	for range 5 {
		if err = s.launch(); !errors.Is(err, errEnded) {
			return err
		}
	}
	return err
}

// keeps answers whether a file of the server's directory is no data: its
// identity, or its log.
func (s *Server) keeps(name string) bool {
	return name == filepath.Base(s.log) || slices.Contains(s.program.Keep, name)
}

func (s *Server) forget() error {
	files, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if !s.keeps(f.Name()) {
			if err := os.RemoveAll(filepath.Join(s.Dir, f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyFiles copies the files and directories below from into to, without
// sockets, and without those directly in from that leave names.
func copyFiles(to, from string, leave func(name string) bool) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o700)
		case leave(name) || !d.Type().IsRegular():
			return nil
		}
		return copyFile(target, path)
	})
}

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = out.ReadFrom(in)
	return err
}
