package gate

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// minSecret is the shortest HS256 secret accepted, in bytes (RFC 7518 §3.2).
const minSecret = 32

// SecretsPath is where a data directory keeps secrets unless they have a
// directory of their own, which several processes may share.
func SecretsPath(dataDir string) string { return filepath.Join(dataDir, "secrets") }

// KeyPath is where a data directory keeps the HS256 secret.
func KeyPath(dataDir string) string { return keyPath(SecretsPath(dataDir)) }

func keyPath(secrets string) string { return filepath.Join(secrets, "jwt.hs256") }

// KeyIn reads the HS256 secret in a directory of secrets and creates it, 32
// random bytes as hex, mode 0600, when there is none. Of two processes that
// create it at the same time both get the same one.
func KeyIn(secrets string) ([]byte, error) {
	key, err := readKey(keyPath(secrets))
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	secret := make([]byte, minSecret)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("%w: no randomness: %w", ErrKey, err)
	}
	path := keyPath(secrets)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	if err := publish(path, []byte(hex.EncodeToString(secret)+"\n")); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return readKey(path)
}

// ReadKey reads the HS256 secret of a data directory. A missing file is also
// fs.ErrNotExist.
func ReadKey(dataDir string) ([]byte, error) { return readKey(KeyPath(dataDir)) }

func readKey(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) < minSecret {
		// The content stays out of the message: it may be most of a secret.
		return nil, fmt.Errorf("%w: %s must hold at least %d bytes as hex; restore it, or remove it to get a new one (which ends every token in use)",
			ErrKey, path, minSecret)
	}
	return key, nil
}

// Mint signs an HS256 token for a user (1..64 printable ASCII bytes, no space)
// that is valid from now for ttl, in whole seconds.
func Mint(key []byte, user string, now time.Time, ttl time.Duration) (string, error) {
	return MintWith(key, user, Claims{}, now, ttl)
}

// publish makes content appear at path whole or not at all, durably, and
// answers fs.ErrExist when something is already there: a link, unlike a rename,
// never replaces a key that another process has begun to use.
func publish(path string, content []byte) error {
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, ".jwt-*") // CreateTemp makes files 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	_, err = temp.Write(content)
	if err == nil {
		err = temp.Sync()
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := os.Link(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}
