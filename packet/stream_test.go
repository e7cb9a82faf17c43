package packet

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

func TestStreamOverlaps(t *testing.T) {
	feed := func(last bool, pieces ...any) string {
		s := Stream{LastWins: last}
		s.Start(100)
		for i := 0; i < len(pieces); i += 2 {
			s.Add(uint32(pieces[i].(int)), []byte(pieces[i+1].(string)))
		}
		return string(s.Data)
	}
	for name, c := range map[string]struct {
		first, last string
		pieces      []any
	}{
		"behind a gap":       {"abCDE", "abcde", []any{102, "CDE", 102, "cde", 100, "ab"}},
		"the gap's filling":  {"abcDE", "abcde", []any{103, "DE", 100, "abcde"}},
		"partly, from left":  {"xxABCd", "xxAbcd", []any{102, "ABC", 103, "bcd", 100, "xx"}},
		"partly, from right": {"xxaBCD", "xxabcD", []any{103, "BCD", 102, "abc", 100, "xx"}},
		"already delivered":  {"abcd", "abcd", []any{100, "abc", 100, "XYZd"}},
	} {
		if got := feed(false, c.pieces...); got != c.first {
			t.Errorf("%s, first wins: %q, want %q", name, got, c.first)
		}
		if got := feed(true, c.pieces...); got != c.last {
			t.Errorf("%s, last wins: %q, want %q", name, got, c.last)
		}
	}
}

func TestStreamIsBounded(t *testing.T) {
	var s Stream
	s.Start(0)
	for i := range 10_000 {
		s.Add(uint32(2+2*i), []byte("x")) // never contiguous
	}
	if len(s.held) > maxHeld || !s.Full {
		t.Errorf("%d segments held, full %v", len(s.held), s.Full)
	}
	s = Stream{Limit: 1000}
	for i := range 100 {
		s.Add(uint32(i*100), bytes.Repeat([]byte("y"), 100))
	}
	if len(s.Data) != 1000 || !s.Full {
		t.Errorf("%d bytes with a limit of 1000, full %v", len(s.Data), s.Full)
	}
	if got := s.Take(); len(got) != 1000 || s.Next() != 1000 {
		t.Errorf("took %d, next %d", len(got), s.Next())
	}
	if !s.Add(1000, []byte("z")) {
		t.Error("no room after what was there has been taken")
	}
}

func TestTable(t *testing.T) {
	now := time.Unix(1000, 0)
	tab := Table[int]{Max: 3, Idle: time.Minute}
	key := func(port uint16) FlowKey { return FlowKey{netip.AddrPortFrom(a4.Addr(), port), b4, TCP} }
	for i := range uint16(3) {
		tab.Put(key(i), int(i), now.Add(time.Duration(i)*time.Second))
	}
	tab.Lookup(key(0), now.Add(10*time.Second)) // used again
	tab.Put(key(3), 3, now.Add(11*time.Second))
	if tab.Len() != 3 || tab.Lookup(key(1), now.Add(11*time.Second)) != nil || tab.Lookup(key(0), now.Add(11*time.Second)) == nil {
		t.Error("not the flow that was used least recently was forgotten")
	}
	back, err := Parse(BuildTCP(Segment{Src: b4, Dst: netip.AddrPortFrom(a4.Addr(), 3), Flags: ACK}))
	if err != nil {
		t.Fatal(err)
	}
	if k, v, forward, found := tab.Get(&back, now.Add(12*time.Second)); !found || forward || *v != 3 || k != key(3) {
		t.Errorf("the other direction: %v %v %v", k, forward, found)
	}
	tab.Expire(now.Add(2 * time.Minute))
	if tab.Len() != 0 {
		t.Errorf("%d flows after the idle time", tab.Len())
	}
	big := Table[int]{Max: 1000}
	for i := range 50_000 {
		big.Put(FlowKey{netip.AddrPortFrom(a4.Addr(), uint16(i)), netip.AddrPortFrom(b4.Addr(), uint16(i>>16)), TCP}, i, now)
	}
	if big.Len() != 1000 {
		t.Errorf("%d flows in a table of 1000", big.Len())
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte{0, 5, 3, 2, 0, 9}, true)
	f.Fuzz(func(t *testing.T, b []byte, last bool) {
		s := Stream{LastWins: last, Limit: 4096}
		s.Start(0xffffff00)
		seq := uint32(0xffffff00)
		for ; len(b) >= 3; b = b[2:] {
			seq += uint32(int8(b[0]))
			s.Add(seq, b[:min(len(b), int(b[1]))])
			if len(s.Data) > 4096 || s.Next() != 0xffffff00+uint32(len(s.Data)) {
				t.Fatalf("%d bytes, next %d", len(s.Data), s.Next())
			}
		}
	})
}
