//go:build race

package cli

// raced says that the race detector slows everything down, several times what
// the runs side by side allow for: what depends on time is not held against
// the truth then.
const raced = true
