package evidence

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"govah/record"
)

// The files of a bundle that have a meaning to this version.
const (
	AboutName        = "about.json"
	CheckpointName   = "checkpoint.txt"
	ConnectionsName  = "connections.jsonl"
	CustodyName      = "custody.jsonl"
	MeasurementsName = "measurement.jsonl"
	PacketsName      = "packets.pcapng"
	ReadmeName       = "README.txt"
	ReceiptsFolder   = "receipts/"
	ReportName       = "report.html"
)

// About says what made the bundle. It is what the key's holder says: nothing
// else vouches for it.
type About struct {
	Type    string `json:"type" class:"none"` // "about"
	Schema  int    `json:"schema"`
	Tool    string `json:"tool" class:"none"`
	Version string `json:"version" class:"none"`           // of the program that sealed
	Rules   string `json:"rules,omitempty" class:"none"`   // by which the report judged
	Lab     string `json:"lab,omitempty" class:"none"`     // the scenario; "" a real network
	Packets string `json:"packets,omitempty" class:"none"` // captured; reported: there are none, but what the kernel told of each connection; "" neither
	// Started and Ended are of the measurements, by the device's clock;
	// RFC 3339.
	Started string `json:"started,omitempty" class:"time"`
	Ended   string `json:"ended,omitempty" class:"time"`
	Sealed  string `json:"sealed,omitempty" class:"time"`
}

// The values of About.Packets.
const (
	PacketsCaptured = "captured"
	PacketsReported = "reported"
)

// Event is one step of the chain of custody up to the sealing.
type Event struct {
	Type   string `json:"type" class:"none"` // "custody"
	Schema int    `json:"schema"`
	Event  string `json:"event" class:"none"` // collected, received, copied
	At     string `json:"at,omitempty" class:"time"`
	By     string `json:"by,omitempty" class:"client"`
	Note   string `json:"note,omitempty" class:"client"` // a person's own words
}

// The events.
const (
	Collected = "collected"
	Received  = "received"
	Copied    = "copied"
)

// Sealing is what goes into a bundle.
type Sealing struct {
	// Measurements are lines of measurement-v1, as they were written.
	Measurements []byte
	// Packets is a pcapng file, nil for none; Own are the device's addresses
	// when it was made, which only decide of which class bytes are.
	Packets []byte
	Own     []netip.Addr
	// Connections are lines of measure.Connection, what the kernel told where
	// packets could not be captured; nil for none.
	Connections []byte
	Report      []byte // HTML for people, nil for none
	About       About  // Type, Schema, Tool, Lab, Started and Ended are filled in
	Custody     []Event
	// Checkpoint is a signed checkpoint of a log, verified or not, nil
	// for none: the bundle was not made before it.
	Checkpoint []byte
	Receipts   [][]byte // helpers' signed notes
	Previous   *Hash    // Entry of the bundle sealed before with this key
	Signer     note.Signer
	Key        string // the signer's verifier key

	secret []byte // of the salts; nil: random, and forgotten
}

const readme = `This file is evidence of what a network did, made with govah (a witness).

Open view/report.html in a browser to read it. The other files in view/ are
what it was made of: measurement.jsonl has one record a line, packets.pcapng
opens in Wireshark.

"withheld", "0" and bytes of zero may stand for something that was taken out
later to protect people. bundle.note says how much there was of each kind, and
is signed; whatever is still here is as it was signed.

To check all this:    govah verify FILE
or, with Python 3:    python3 verify.py FILE
The format is described in docs/formats/bundle-v1.md of either program.
`

// Seal makes a bundle and verifies it.
func Seal(s Sealing) ([]byte, error) {
	if s.Signer == nil || s.Key == "" {
		return nil, errors.New("sealing: there is no key")
	}
	about, err := s.about()
	if err != nil {
		return nil, err
	}
	files := []File{wholeFile(ReadmeName, []byte(readme), None), Measurements(AboutName, about), Measurements(MeasurementsName, s.Measurements)}
	if len(s.Custody) > 0 {
		var b bytes.Buffer
		for _, e := range s.Custody {
			e.Type, e.Schema = "custody", 1
			if err := line(&b, e); err != nil {
				return nil, fmt.Errorf("sealing: custody: %w", err)
			}
		}
		files = append(files, Measurements(CustodyName, b.Bytes()))
	}
	if len(s.Packets) > 0 {
		f, err := Captured(PacketsName, s.Packets, s.Own)
		if err != nil {
			return nil, fmt.Errorf("sealing: the packets: %w", err)
		}
		files = append(files, f)
	}
	if len(s.Connections) > 0 {
		files = append(files, Measurements(ConnectionsName, s.Connections))
	}
	if len(s.Report) > 0 {
		files = append(files, wholeFile(ReportName, s.Report, Rendering))
	}
	if len(s.Checkpoint) > 0 {
		files = append(files, wholeFile(CheckpointName, s.Checkpoint, None))
	}
	for i, r := range s.Receipts {
		if len(r) == 0 {
			return nil, errors.New("sealing: an empty receipt")
		}
		// It names the AS, as measured by somebody else.
		files = append(files, wholeFile(fmt.Sprintf("%s%04d.note", ReceiptsFolder, i+1), r, Network))
	}
	return s.seal(files)
}

func (s *Sealing) seal(files []File) ([]byte, error) {
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	secret := s.secret
	if secret == nil {
		secret = make([]byte, 32)
		rand.Read(secret)
	}
	b := &Bundle{Statement: Statement{Key: s.Key, Previous: s.Previous, Files: files}}
	var err error
	if b.entries, b.Counts, err = tabulate(files, secret); err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	if b.values, err = place(files, b.entries); err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	if b.Root, err = rootOf(b.entries, b.values); err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	if b.note, err = note.Sign(&note.Note{Text: b.text()}, s.Signer); err != nil {
		return nil, fmt.Errorf("sealing: signing: %w", err)
	}
	data, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	if _, err := Open(data); err != nil {
		return nil, fmt.Errorf("sealing: what was made does not verify: %w", err)
	}
	return data, nil
}

func wholeFile(name string, data []byte, c Class) File {
	return File{Name: name, Kind: Whole, Data: data, Segments: []Segment{{c, len(data)}}, Size: 1}
}

// about is about.json, with what the measurements say of themselves.
func (s *Sealing) about() ([]byte, error) {
	a := s.About
	a.Type, a.Schema, a.Tool = "about", 1, "govah"
	if a.Packets == "" && len(s.Packets) > 0 {
		a.Packets = PacketsCaptured
	} else if a.Packets == "" && len(s.Connections) > 0 {
		a.Packets = PacketsReported
	}
	for l := range bytes.Lines(s.Measurements) {
		switch k := record.Sniff(l); k {
		case record.KindRun, record.KindEnd:
			e, err := record.Decode(bytes.TrimSpace(l))
			if err != nil {
				continue
			}
			if r := e.Run; r != nil && a.Started == "" {
				a.Started, a.Lab = r.Started, r.Lab
			}
			if e.End != nil {
				a.Ended = e.End.Ended
			}
		}
	}
	var b bytes.Buffer
	if err := line(&b, a); err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	return b.Bytes(), nil
}

func line(b *bytes.Buffer, v any) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
