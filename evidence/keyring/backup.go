package keyring

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// Backup writes the key of the scope's current epoch, encrypted: to recipients,
// or if there are none with a passphrase that is asked for. It is of this epoch
// alone: later keys do not follow from it.
func (s *Store) Backup(scope string, ask, askNew Ask, to *Recipients) ([]byte, error) {
	k, err := s.Get(scope, ask)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	data, err := json.Marshal(k.state)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	if to != nil {
		return Encrypt(data, to)
	}
	passphrase, err := chosen(askNew, scope)
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	return protect(data, passphrase, s.cost)
}

// Restore reads a backup and puts its key where there is none, unprotected, or
// protected with a passphrase where askNew is given. identities, if not nil,
// are age's secret keys, one a line; else the passphrase of the backup is
// asked for. A store that has gone on from the backup's epoch refuses it.
func (s *Store) Restore(in io.Reader, identities io.Reader, ask, askNew Ask) (Info, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return Info{}, fmt.Errorf("reading the backup: %w", err)
	}
	if len(data) > maxFile || !isEncrypted(data) {
		return Info{}, errors.New("it is no backup of a key")
	}
	if identities != nil {
		list, err := age.ParseIdentities(io.LimitReader(identities, maxRecipientFile))
		if err != nil {
			return Info{}, errors.New("the secret keys of age cannot be read")
		}
		if data, err = decrypt(data, list...); errors.Is(err, ErrPassphrase) {
			err = errors.New("none of the secret keys opens the backup")
		}
		if err != nil {
			return Info{}, err
		}
	} else {
		passphrase, err := ask.ask(Question{})
		if err != nil {
			return Info{}, err
		}
		data, err = openWithPassphrase(data, passphrase)
		clear(passphrase)
		if err != nil {
			return Info{}, err
		}
	}
	defer clear(data)
	st, err := parseState(data)
	if err != nil {
		return Info{}, err
	}
	defer clear(st.Seed)
	h, err := s.hold(true)
	if err != nil {
		return Info{Scope: st.Scope}, err
	}
	defer h.close()
	k := &Key{h: h, id: fileOf(st.Scope)}
	if has := h.keys[k.id]; has >= st.Epoch {
		return Info{Scope: st.Scope}, ErrOlder
	} else if has > 0 {
		return Info{}, fmt.Errorf("the scope %q has a key here that the backup does not follow from", st.Scope)
	}
	if askNew != nil {
		if k.passphrase, err = chosen(askNew, st.Scope); err != nil {
			return Info{}, err
		}
	}
	if err := k.put(st); err != nil {
		return Info{}, err
	}
	return Info{Scope: st.Scope, Epoch: st.Epoch, Key: st.Key, Protected: k.passphrase != nil}, nil
}
