package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Just enough of rtnetlink(7) to lay cables between namespaces.

// attribute is one netlink attribute with its padding.
func attribute(kind uint16, payload []byte) []byte {
	b := make([]byte, 4, 4+len(payload)+3)
	binary.NativeEndian.PutUint16(b, uint16(4+len(payload)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	b = append(b, payload...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func text(s string) []byte { return append([]byte(s), 0) }

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// request sends one message to the kernel of the thread's namespace and waits
// for its acknowledgement.
func request(kind, flags uint16, body ...[]byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("netlink", err)
	}
	defer unix.Close(fd)
	msg := make([]byte, unix.SizeofNlMsghdr)
	for _, b := range body {
		msg = append(msg, b...)
	}
	h := (*unix.NlMsghdr)(unsafe.Pointer(&msg[0]))
	h.Len, h.Type, h.Flags, h.Seq = uint32(len(msg)), kind, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK, 1
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("netlink", err)
	}
	buf := make([]byte, 8192)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return os.NewSyscallError("netlink", err)
	}
	if n < unix.SizeofNlMsghdr+4 {
		return errors.New("netlink: short answer")
	}
	if code := int32(binary.NativeEndian.Uint32(buf[unix.SizeofNlMsghdr:])); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}

const vethInfoPeer = 1 // VETH_INFO_PEER of linux/veth.h

// cable makes a pair of interfaces: name here, peer in the namespace there.
// Both have the same hardware address and no ARP, so that what one sends is
// for the other without any exchange.
func cable(name, peer string, there int) error {
	var info unix.IfInfomsg
	mac := attribute(unix.IFLA_ADDRESS, hardware[:])
	other := append(append([]byte(nil), bytesOf(&info)...), attribute(unix.IFLA_IFNAME, text(peer))...)
	other = append(append(other, mac...), attribute(unix.IFLA_NET_NS_FD, u32(uint32(there)))...)
	link := append(attribute(unix.IFLA_INFO_KIND, []byte("veth")),
		attribute(unix.IFLA_INFO_DATA, attribute(vethInfoPeer, other))...)
	err := request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, bytesOf(&info),
		attribute(unix.IFLA_IFNAME, text(name)), mac, attribute(unix.IFLA_LINKINFO, link))
	if err != nil {
		return fmt.Errorf("kernel: cable %s-%s: %w", name, peer, err)
	}
	return nil
}

// hardware is the address of all interfaces, a locally administered one.
var hardware = [6]byte{2, 0, 0, 0, 0, 1}

func indexOf(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r); err != nil {
		return 0, fmt.Errorf("kernel: interface %s: %w", name, err)
	}
	return int(r.Uint32()), nil
}

// up switches an interface on, without ARP, and its offloads off: what leaves
// it are packets as they would be on a wire.
func up(name string) error {
	index, err := indexOf(name)
	if err != nil {
		return err
	}
	if name != "lo" {
		for _, feature := range []uint32{unix.ETHTOOL_STXCSUM, unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO} {
			if err := offload(name, feature); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
				return fmt.Errorf("kernel: offloads of %s: %w", name, err)
			}
		}
	}
	info := unix.IfInfomsg{Index: int32(index), Flags: unix.IFF_UP | unix.IFF_NOARP, Change: unix.IFF_UP | unix.IFF_NOARP}
	if err := request(unix.RTM_NEWLINK, 0, bytesOf(&info)); err != nil {
		return fmt.Errorf("kernel: switching %s on: %w", name, err)
	}
	return nil
}

// offload switches one feature off (ethtool's ioctl).
func offload(name string, feature uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	value := struct{ command, data uint32 }{feature, 0}
	var r struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(r.name[:unix.IFNAMSIZ-1], name)
	r.data = unsafe.Pointer(&value)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r))); e != 0 {
		return e
	}
	return nil
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// address gives an interface an address of its own, with no network around it.
func address(name string, a netip.Addr) error {
	index, err := indexOf(name)
	if err != nil {
		return err
	}
	m := unix.IfAddrmsg{Family: familyOf(a), Prefixlen: uint8(a.BitLen()), Flags: unix.IFA_F_NODAD, Index: uint32(index)}
	raw := a.AsSlice()
	if err := request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, bytesOf(&m),
		attribute(unix.IFA_LOCAL, raw), attribute(unix.IFA_ADDRESS, raw)); err != nil {
		return fmt.Errorf("kernel: address %v on %s: %w", a, name, err)
	}
	return nil
}

// route sends a prefix out of an interface.
func route(p netip.Prefix, name string) error {
	index, err := indexOf(name)
	if err != nil {
		return err
	}
	m := unix.RtMsg{Family: familyOf(p.Addr()), Dst_len: uint8(p.Bits()), Table: unix.RT_TABLE_MAIN,
		Protocol: unix.RTPROT_STATIC, Scope: unix.RT_SCOPE_LINK, Type: unix.RTN_UNICAST}
	if p.Addr().Is6() {
		m.Scope = unix.RT_SCOPE_UNIVERSE
	}
	body := [][]byte{bytesOf(&m), attribute(unix.RTA_OIF, u32(uint32(index)))}
	if p.Bits() > 0 {
		body = append(body, attribute(unix.RTA_DST, p.Addr().AsSlice()))
	}
	if err := request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body...); err != nil {
		return fmt.Errorf("kernel: route %v to %s: %w", p, name, err)
	}
	return nil
}
