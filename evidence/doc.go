// Package evidence turns a measurement into a file that others can check
// without trusting whoever hands it to them: a bundle (docs/formats/bundle-v1.md).
// What is in it is cut into leaves, each with a class that says whom it can
// identify and a salt of its own; one key signs the root of their tree. Leaves
// can be withheld later, by their class, and the rest still verifies.
//
// A bundle proves that the holder of a key stated all this, unchanged since,
// and between which times. It does not prove that the statement is true.
package evidence
