// Package i18n puts govah's words into English and Persian.
//
// The words are data: en.json and fa.json hold the same keys with the same
// placeholders, which the tests enforce. A message is plain text with two
// kinds of placeholder:
//
//	{name}              the argument of that name
//	{name?one|other}    "one" if the number is 1, else "other"
//
// Arguments carry their kind (number, host, foreign text, …), so that each is
// written as the language and the medium need it: Persian digits for counts
// in prose, never in addresses and codes; hosts and addresses isolated from
// the surrounding direction; and everything that came from elsewhere escaped.
package i18n

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
	"sync"
)

// Lang is a language that govah speaks, as its BCP 47 tag.
type Lang string

// The languages.
const (
	English Lang = "en"
	Persian Lang = "fa"
)

// Langs are all languages, in the order of preference.
var Langs = []Lang{English, Persian}

// RTL reports whether l is written from right to left.
func (l Lang) RTL() bool { return l == Persian }

// Choose picks the language: the value of --lang if it is set, else the locale
// (LC_ALL, LC_MESSAGES, LANG: the first that is set decides, as in POSIX),
// else English. Only an unknown flag is an error; an unknown locale is not.
func Choose(flag string, getenv func(string) string) (Lang, error) {
	if flag != "" {
		for _, l := range Langs {
			if strings.EqualFold(flag, string(l)) {
				return l, nil
			}
		}
		return English, fmt.Errorf("--lang %q is not available; use en or fa", Escape(flag))
	}
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		value := getenv(name)
		if value == "" {
			continue
		}
		language, _, _ := strings.Cut(value, ".")
		language, _, _ = strings.Cut(language, "@")
		language, _, _ = strings.Cut(strings.ReplaceAll(language, "-", "_"), "_")
		if strings.EqualFold(language, string(Persian)) {
			return Persian, nil
		}
		return English, nil
	}
	return English, nil
}

//go:embed en.json fa.json
var files embed.FS

var catalogue = sync.OnceValue(func() map[Lang]map[string]string {
	all := make(map[Lang]map[string]string, len(Langs))
	for _, l := range Langs {
		data, err := files.ReadFile(string(l) + ".json")
		if err == nil {
			all[l], err = parse(data)
		}
		if err != nil {
			// The data is compiled in, so this is an error of the programmer.
			panic(fmt.Sprintf("i18n: %s.json: %v", l, err))
		}
	}
	return all
})

// parse flattens nested objects of strings: {"a":{"b":"text"}} is "a.b". A key
// given twice is an error, which encoding/json alone would not notice.
func parse(data []byte) (map[string]string, error) {
	out := make(map[string]string, 512)
	dec := json.NewDecoder(bytes.NewReader(data))
	var object func(prefix string) error
	object = func(prefix string) error {
		for {
			token, err := dec.Token()
			if err != nil {
				return err
			}
			if token == json.Delim('}') {
				return nil
			}
			name, ok := token.(string)
			if !ok {
				return fmt.Errorf("after %q: a key is not a string", prefix)
			}
			key := prefix + name
			token, err = dec.Token()
			if err != nil {
				return err
			}
			switch value := token.(type) {
			case json.Delim:
				if value != '{' {
					return fmt.Errorf("%q is neither text nor an object", key)
				}
				if err := object(key + "."); err != nil {
					return err
				}
			case string:
				if _, twice := out[key]; twice {
					return fmt.Errorf("%q is there twice", key)
				}
				if _, err := split(value); err != nil {
					return fmt.Errorf("%q: %w", key, err)
				}
				out[key] = value
			default:
				return fmt.Errorf("%q is neither text nor an object", key)
			}
		}
	}
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("it is not a JSON object")
	}
	if err := object(""); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the object")
	}
	return out, nil
}

// Keys are all keys of the catalogue, sorted.
func Keys() []string {
	keys := make([]string, 0, 512)
	for key := range catalogue()[English] {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Has reports whether l has words for key. Keys that are made from data (a
// method that a newer version wrote) must be asked for before Text.
func (l Lang) Has(key string) bool {
	_, ok := catalogue()[l][key]
	return ok
}

// part is a piece of a message: literal text, or a placeholder.
type part struct {
	text       string // literal, if name is ""
	name       string
	choice     bool
	one, other string
}

func split(message string) ([]part, error) {
	var parts []part
	for message != "" {
		open := strings.IndexByte(message, '{')
		if open < 0 {
			open = len(message)
		}
		if open > 0 {
			if strings.IndexByte(message[:open], '}') >= 0 {
				return nil, errors.New("a } without its {")
			}
			parts = append(parts, part{text: message[:open]})
			message = message[open:]
			continue
		}
		end := strings.IndexByte(message, '}')
		if end < 0 {
			return nil, errors.New("a { without its }")
		}
		name, forms, choice := strings.Cut(message[1:end], "?")
		p := part{name: name, choice: choice}
		if choice {
			var ok bool
			if p.one, p.other, ok = strings.Cut(forms, "|"); !ok {
				return nil, fmt.Errorf("{%s} has no two forms", message[1:end])
			}
		}
		if name == "" || strings.ContainsAny(name, "{ |") {
			return nil, fmt.Errorf("{%s} is no placeholder", message[1:end])
		}
		parts = append(parts, p)
		message = message[end+1:]
	}
	return parts, nil
}

// Markup is HTML that is safe to write as it is: a constant of this program,
// or made from one with every argument escaped. A string variable does not
// convert to it by accident.
type Markup string

// Text is the message of key in l, for a terminal. In Persian, hosts and other
// left-to-right arguments are wrapped in U+2066 … U+2069. A key that is not in
// the catalogue, or an argument that the message needs and was not given, is
// an error of the programmer and panics.
func (l Lang) Text(key string, args ...Arg) string {
	var b strings.Builder
	l.format(key, args, func(s string) { b.WriteString(s) }, func(a Arg) { b.WriteString(a.plain(l)) })
	return b.String()
}

// HTML is the message of key in l as HTML: literal text and arguments are
// escaped, hosts and other left-to-right arguments are <bdi dir="ltr">.
func (l Lang) HTML(key string, args ...Arg) Markup {
	var b strings.Builder
	l.format(key, args, func(s string) { b.WriteString(html.EscapeString(s)) }, func(a Arg) { b.WriteString(string(a.markup(l))) })
	return Markup(b.String())
}

func (l Lang) format(key string, args []Arg, literal func(string), argument func(Arg)) {
	message, ok := catalogue()[l][key]
	if !ok {
		panic(fmt.Sprintf("i18n: no words for %q in %q", key, string(l)))
	}
	parts, err := split(message)
	if err != nil {
		panic(fmt.Sprintf("i18n: %q in %q: %v", key, string(l), err))
	}
	for _, p := range parts {
		if p.name == "" {
			literal(p.text)
			continue
		}
		i := slices.IndexFunc(args, func(a Arg) bool { return a.name == p.name })
		if i < 0 {
			panic(fmt.Sprintf("i18n: %q needs {%s}", key, p.name))
		}
		switch {
		case !p.choice:
			argument(args[i])
		case args[i].number == 1:
			literal(p.one)
		default:
			literal(p.other)
		}
	}
}
