package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"govah/internal/i18n"
	"govah/report"
)

// output is standard output. It keeps the first failure to write, which not
// everybody who prints asks for.
type output struct {
	io.Writer
	err error
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil && o.err == nil {
		o.err = err
	}
	return n, err
}

// isTerminal says whether w is a terminal; /dev/null, a device like one, is
// none.
func isTerminal(w any) bool {
	if o, ok := w.(*output); ok {
		w = o.Writer
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	c, err := f.SyscallConn() // Fd would make the file block
	if err != nil {
		return false
	}
	yes := false
	err = c.Control(func(fd uintptr) { yes = terminal(fd) })
	return err == nil && yes
}

// note prints a message on stderr, in lines of at most 80 columns.
func (a *app) note(text string) {
	fmt.Fprintln(a.err, report.Wrap(text, 0, 2))
}

// item prints a line that belongs to the note above it.
func (a *app) item(text string) {
	fmt.Fprintln(a.err, report.Wrap(text, 2, 4))
}

// unbroken keeps a command, which stands between backquotes, on one line.
func unbroken(s string) string {
	parts := strings.Split(s, "`")
	for i := 1; i+1 < len(parts); i += 2 {
		parts[i] = strings.ReplaceAll(parts[i], " ", string(i18n.NoBreak))
	}
	return strings.Join(parts, "`")
}

// clean keeps characters that act on a terminal, and those that begin a line
// or turn its direction, off what is printed: they may come from a file's
// name or from the network.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && acts(r) || r == '\u2028' || r == '\u2029' {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// acts says whether r is a control character (C0, DEL, C1) or sets the
// direction of what stands around it.
func acts(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)
}

// jsonLine is v as one line of JSON that is safe to print: what acts on a
// terminal is escaped, so that the value stays what it is.
func jsonLine(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	line := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if bytes.IndexFunc(line, acts) >= 0 {
		var safe bytes.Buffer
		for _, r := range string(line) {
			if acts(r) { // inside a string: the rest of JSON is ASCII
				fmt.Fprintf(&safe, `\u%04x`, r)
			} else {
				safe.WriteRune(r)
			}
		}
		line = safe.Bytes()
	}
	return append(line, '\n'), nil
}

// line prints one line of JSON.
func (a *app) line(v any) error {
	line, err := jsonLine(v)
	if err != nil {
		return err
	}
	_, err = a.out.Write(line)
	return err
}
