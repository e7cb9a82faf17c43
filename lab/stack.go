package lab

import (
	"fmt"
	"io"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"govah/packet"
)

const nicID = 1

// link is a NIC without hardware: what the stack sends is handed to send,
// which must not call back into the stack.
type link struct {
	mtu        uint32
	dispatcher stack.NetworkDispatcher
	send       func(pkt []byte)
}

func (l *link) MTU() uint32                      { return l.mtu }
func (l *link) SetMTU(mtu uint32)                { l.mtu = mtu }
func (l *link) MaxHeaderLength() uint16          { return 0 }
func (l *link) LinkAddress() tcpip.LinkAddress   { return "" }
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}
func (l *link) Attach(d stack.NetworkDispatcher)        { l.dispatcher = d }
func (l *link) IsAttached() bool                        { return l.dispatcher != nil }
func (l *link) Wait()                                   {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (l *link) AddHeader(*stack.PacketBuffer)           {}
func (l *link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *link) Close()                                  {}
func (l *link) SetOnCloseAction(func())                 {}

func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	for _, p := range pkts.AsSlice() {
		v := p.ToView()
		b := append([]byte(nil), v.AsSlice()...)
		v.Release()
		number(b)
		l.send(b)
		n++
	}
	return n, nil
}

// number gives the segments of a connection IP IDs as Linux does, which this
// stack leaves 0: devices copy them, and servers are told from devices by
// them. They go up with the sequence numbers from a number of the connection.
func number(b []byte) {
	p, err := packet.Parse(b)
	if err != nil || p.V6() || p.Proto != packet.TCP || p.ID != 0 || p.Flags&(packet.SYN|packet.RST) != 0 {
		return
	}
	h := uint32(2166136261) // FNV-1a
	for _, c := range p.Raw[12:24] {
		h = (h ^ uint32(c)) * 16777619
	}
	packet.SetID(b, uint16(h^h>>16)+uint16(p.Seq)|1)
}

// deliver gives the stack a packet that arrived. Only the world's own
// goroutine calls it.
func (l *link) deliver(pkt []byte) {
	if l.dispatcher == nil || len(pkt) == 0 {
		return
	}
	proto := header.IPv4ProtocolNumber
	if pkt[0]>>4 == 6 {
		proto = header.IPv6ProtocolNumber
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(pkt)})
	l.dispatcher.DeliverNetworkPacket(proto, p)
	p.DecRef()
}

// quietStacks keeps gVisor from writing into the user's terminal.
var quietStacks = sync.OnceFunc(func() { log.SetTarget(&log.Writer{Next: io.Discard}) })

// newStack makes a TCP/IP stack behind a link.
func newStack(send func([]byte), promiscuous bool) (*stack.Stack, *link, error) {
	quietStacks()
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		HandleLocal:        false,
	})
	l := &link{mtu: 1500, send: send}
	if err := s.CreateNIC(nicID, l); err != nil {
		return nil, nil, fmt.Errorf("lab: making a network card: %s", err)
	}
	if promiscuous {
		s.SetPromiscuousMode(nicID, true)
		s.SetSpoofing(nicID, true)
	}
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nicID}, {Destination: header.IPv6EmptySubnet, NIC: nicID}})
	sack := tcpip.TCPSACKEnabled(true)
	s.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 256 << 10, Max: 4 << 20}
	s.SetTransportProtocolOption(tcp.ProtocolNumber, &rcv)
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 256 << 10, Max: 4 << 20}
	s.SetTransportProtocolOption(tcp.ProtocolNumber, &snd)
	return s, l, nil
}

func addAddress(s *stack.Stack, a netip.Addr) error {
	proto := header.IPv4ProtocolNumber
	if a.Is6() {
		proto = header.IPv6ProtocolNumber
	}
	err := s.AddProtocolAddress(nicID, tcpip.ProtocolAddress{Protocol: proto,
		AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix()}, stack.AddressProperties{})
	if err != nil {
		return fmt.Errorf("lab: giving a host the address %s: %s", a, err)
	}
	return nil
}

func fullAddress(ap netip.AddrPort) tcpip.FullAddress {
	f := tcpip.FullAddress{NIC: nicID, Port: ap.Port()}
	if ap.Addr().IsValid() && !ap.Addr().IsUnspecified() {
		f.Addr = tcpip.AddrFromSlice(ap.Addr().AsSlice())
	}
	return f
}

func netProto(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is6() {
		return header.IPv6ProtocolNumber
	}
	return header.IPv4ProtocolNumber
}

func addrOf(a tcpip.Address) netip.Addr {
	n, _ := netip.AddrFromSlice(a.AsSlice())
	return n
}
