package lab

import (
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// backlog is how many connections wait to be accepted at an address.
const backlog = 4096

// admit completes the handshake of a connection that a forwarder was asked
// for, as one to a server at local; nil if it fails.
func admit(r *tcp.ForwarderRequest, local netip.AddrPort) *serverConn {
	id := r.ID()
	wq := new(waiter.Queue)
	ep, err := r.CreateEndpoint(wq)
	if err != nil {
		r.Complete(true)
		return nil
	}
	r.Complete(false)
	return newServerConn(ep, wq, local, netip.AddrPortFrom(addrOf(id.RemoteAddress), id.RemotePort))
}

func newServerConn(ep tcpip.Endpoint, wq *waiter.Queue, local, remote netip.AddrPort) *serverConn {
	return &serverConn{TCPConn: gonet.NewTCPConn(wq, ep), ep: ep, local: net.TCPAddrFromAddrPort(local), remote: net.TCPAddrFromAddrPort(remote), reset: ep.Abort}
}

// listener takes the connections of one address and port, as the kernel does:
// also those that were reset before anybody accepted them, with what had come
// on them.
type listener struct {
	ep   tcpip.Endpoint
	wq   *waiter.Queue
	at   netip.AddrPort
	done chan struct{}
	once sync.Once
	free func() // gives the address back
}

func (w *World) listen(ap netip.AddrPort, free func()) (*listener, error) {
	wq := new(waiter.Queue)
	ep, terr := w.servers.NewEndpoint(tcp.ProtocolNumber, netProto(ap.Addr()), wq)
	if terr == nil {
		ep.SocketOptions().SetReuseAddress(true) // connections of a listener before it may be open
		if terr = ep.Bind(fullAddress(ap)); terr == nil {
			terr = ep.Listen(backlog)
		}
		if terr != nil {
			ep.Close()
		}
	}
	if terr != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: errnoOf(terr.String())}
	}
	return &listener{ep: ep, wq: wq, at: ap, done: make(chan struct{}), free: free}, nil
}

func (l *listener) Accept() (net.Conn, error) {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents)
	l.wq.EventRegister(&entry)
	defer l.wq.EventUnregister(&entry)
	for {
		select {
		case <-l.done:
			return nil, net.ErrClosed
		default:
		}
		var peer tcpip.FullAddress
		ep, wq, terr := l.ep.Accept(&peer)
		switch terr.(type) {
		case nil:
			return newServerConn(ep, wq, l.at, netip.AddrPortFrom(addrOf(peer.Addr), peer.Port)), nil
		case *tcpip.ErrWouldBlock:
		default:
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: errnoOf(terr.String())}
		}
		select {
		case <-ready:
		case <-l.done:
		}
	}
}

// Close ends what waits to be accepted as well.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.ep.Close()
		l.free()
	})
	return nil
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }
