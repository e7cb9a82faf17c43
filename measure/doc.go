// Package measure holds the words that all of govah shares: what is measured
// (Target), from where (Vantage, View), what happened step by step
// (Observation, Measurement), and what follows from it (Verdict, Finding).
// It holds types and constants only: no clock, no I/O, no judgement.
//
// # Records
//
// Each type that is written to a file has a "type" and a "schema" of its own.
// Fields and types are added and never renamed; readers ignore what they do
// not know. Quantities are integers with their unit in the name.
//
// # Classes
//
// Every string, address or byte field carries a `class` tag that says whom or
// what it can identify, so that redaction is a property of the type and not
// of the code that writes it. A test fails on an untagged field. The classes:
//
//	none     vocabulary of this program: methods, steps, versions, ids
//	target   what was tested: a name, a URL, a server's address
//	client   the device or its user: an address of its own, a user name
//	network  the network it was in: operator, resolver, router, link
//	time     when it happened, precise enough to correlate
//	foreign  text or bytes that came from the network and may hold anything
package measure
