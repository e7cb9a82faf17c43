// Package kernel puts a client on the Linux kernel's own network stack in
// front of an emulated internet: a command runs in namespaces that this
// package makes without privilege, and each packet that leaves its interface
// goes to the lab and back. So the same scenarios that run inside one process
// test the kernel side as well.
//
// The namespaces need a process of their own, so the program that uses this
// package is started again: its main or TestMain calls Main first.
package kernel

import (
	"errors"
	"net/netip"

	"govah/lab"
)

// Link says what is at the other end of the client's line. For a lab.World
// made with Options.Raw: Addresses is ClientAddresses, Send is Inject and
// Attach is Port.
type Link struct {
	Addresses []netip.Addr // of the client
	// Resolver is put into the client's resolv.conf; invalid: none.
	Resolver netip.Addr
	// Routers is how many of the kernel's own routers stand between the
	// client and the lab, at most 8.
	Routers int
	// Files are further files that the command sees with other contents.
	Files map[string]string
	// Programs run on the kernel's routers meanwhile, with all rights in
	// those namespaces: devices as they are sold, in front of the lab.
	Programs []Program
	// Privileged leaves the command its capabilities in its own namespaces
	// (packet capture); without, it has none.
	Privileged bool
	// Send is given each IP packet that the client sends.
	Send func(pkt []byte)
	// Attach is told how to give the client a packet.
	Attach func(receive func(pkt []byte))
}

// Program is a command on one of the kernel's routers. It starts before the
// client's command and is killed after it. What it writes goes to the standard
// error of the client's command. It speaks to the lab over IPv4 as somebody
// behind the client's address, by the router's own translation.
type Program struct {
	Router int      // whose, from 1
	Args   []string // the first is looked for in PATH
	Env    []string // nil: that of the program that uses this package
	// Before are commands that set the router up, one after the other; each
	// must succeed.
	Before [][]string
	// Listens are sockets that it has opened when it is ready, as tcp:8080.
	Listens []string
}

// Of is the link to a world made with lab.Options.Raw. The kernel's clock is
// the real one, so such a world is best made for the present (Options.At).
func Of(w *lab.World) Link {
	link := Link{Addresses: w.ClientAddresses(), Send: w.Inject, Attach: w.Port}
	if a, err := netip.ParseAddr(w.Client.Resolver); err == nil {
		link.Resolver = a
	}
	return link
}

// RouterAddresses are the addresses of the kernel's n-th router, from 1.
func RouterAddresses(n int) (v4, v6 netip.Addr) {
	return netip.AddrFrom4([4]byte{100, 64, byte(n), 1}), netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x64, 7: byte(n), 15: 1})
}

// ErrUnavailable is wrapped by the error of Run where the machine does not
// let an ordinary user make namespaces; a test skips then. Any other error is
// a fault.
var ErrUnavailable = errors.New("user and network namespaces cannot be made here")
