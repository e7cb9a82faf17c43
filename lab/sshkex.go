package lab

import (
	"bufio"
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"
)

// Message numbers of RFC 4253, 12 and RFC 5656, 7.1.
const (
	sshKexInit   = 20
	sshNewKeys   = 21
	sshECDHInit  = 30
	sshECDHReply = 31
)

var errSSH = errors.New("lab: not SSH as the lab speaks it")

// speakSSH is a server's side of SSH up to the proof of its host key (RFC 4253,
// 4.2, 7 and 8; RFC 8731). It derives no keys from the exchange: there is
// nothing after it, neither a login nor anything that could be passed on.
func speakSSH(c net.Conn, version string, keys []*sshKey) error {
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if version == "" {
		version = "SSH-2.0-OpenSSH_9.6"
	}
	ours := kexInit(keys)
	if _, err := c.Write(append([]byte(version+"\r\n"), sshPacket(ours)...)); err != nil {
		return err
	}
	in := bufio.NewReader(io.LimitReader(c, 256<<10))
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	theirs, err := readSSHPacket(in, sshKexInit)
	if err != nil {
		return err
	}
	key := agreed(theirs, keys)
	if key == nil {
		return errSSH
	}
	ask, err := readSSHPacket(in, sshECDHInit)
	if err != nil || len(ask) < 5 {
		return errors.Join(errSSH, err)
	}
	peer, err := ecdh.X25519().NewPublicKey(ask[5:])
	if err != nil {
		return err
	}
	own, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	secret, err := own.ECDH(peer)
	if err != nil {
		return err
	}
	var hashed []byte
	for _, part := range [][]byte{[]byte(strings.TrimRight(line, "\r\n")), []byte(version), theirs, ours, key.public, peer.Bytes(), own.PublicKey().Bytes(), mpint(secret)} {
		hashed = sshString(hashed, part)
	}
	sum := sha256.Sum256(hashed)
	signature, err := key.sign(sum[:])
	if err != nil {
		return err
	}
	reply := sshString([]byte{sshECDHReply}, key.public)
	reply = sshString(reply, own.PublicKey().Bytes())
	reply = sshString(reply, signature)
	if _, err := c.Write(append(sshPacket(reply), sshPacket([]byte{sshNewKeys})...)); err != nil {
		return err
	}
	io.Copy(io.Discard, in) // until the other side has seen enough
	return nil
}

// kexInit lists what a server of the lab has.
func kexInit(keys []*sshKey) []byte {
	var kinds []string
	for _, s := range keys {
		kinds = append(kinds, s.kind)
	}
	b := make([]byte, 17)
	b[0] = sshKexInit
	rand.Read(b[1:])
	const cipher, mac, none = "aes128-gcm@openssh.com", "hmac-sha2-256-etm@openssh.com", "none"
	for _, list := range []string{"curve25519-sha256", strings.Join(kinds, ","), cipher, cipher, mac, mac, none, none, "", ""} {
		b = sshString(b, []byte(list))
	}
	return append(b, 0, 0, 0, 0, 0)
}

// agreed is the first of the client's host key algorithms that there is a key
// for (RFC 4253, 7.1).
func agreed(theirs []byte, keys []*sshKey) *sshKey {
	b := theirs[min(17, len(theirs)):]
	var list []byte
	for range 2 { // the second list
		if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			return nil
		}
		n := binary.BigEndian.Uint32(b)
		list, b = b[4:4+n], b[4+n:]
	}
	for a := range strings.SplitSeq(string(list), ",") {
		if i := slices.IndexFunc(keys, func(s *sshKey) bool { return s.kind == a }); i >= 0 {
			return keys[i]
		}
	}
	return nil
}

// sshPacket is one before there are keys (RFC 4253, 6).
func sshPacket(payload []byte) []byte {
	padding := 8 - (5+len(payload))%8
	if padding < 4 {
		padding += 8
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	return append(append(append(b, byte(padding)), payload...), bytes.Repeat([]byte{0}, padding)...)
}

func readSSHPacket(in io.Reader, want byte) ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head[:])) - 1
	if n < 1+int(head[4]) || n > 64<<10 {
		return nil, errSSH
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(in, b); err != nil {
		return nil, err
	}
	if b = b[:n-int(head[4])]; b[0] != want {
		return nil, errSSH
	}
	return b, nil
}

func sshString(b, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// mpint is a positive number as RFC 4251, 5 writes it.
func mpint(b []byte) []byte {
	b = new(big.Int).SetBytes(b).Bytes()
	if len(b) > 0 && b[0]&0x80 != 0 {
		b = append([]byte{0}, b...)
	}
	return b
}
