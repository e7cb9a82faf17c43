// Package known holds what is known in advance, as data with sources: block
// pages, headers and packets of filtering products, forged DNS answers, roots and
// issuers of interception, look-alikes that are no interference, special-use
// addresses, and the third parties that a run contacts as controls.
//
// The rows are in the CSV files next to this one; each has an id, the source
// it was taken from and an example that a test matches. Nothing here
// concludes: a match is a resemblance, and package judge asks for more than
// that. Rows look into bodies, headers and greetings (banner); the issuers of
// certificates have a table of their own (InterceptionRoot).
//
// # Kinds of signature
//
//	blockpage       occurs only in the page or redirect of a filter
//	product         names a product; occurs in innocent pages too
//	lookalike       error or refusal page of a server, CDN or web firewall
//	captcha         wall of the server's side against robots
//	geoblock        the server refuses countries by itself
//	parked          the domain is for sale
//	captive         login page of a hotspot
//	forged-address  given by a forger and nobody else
//	filter-address  given by a filter that somebody at this place chose
//	safesearch      genuine address of a search engine's restricted mode
//	innocent        of an imported list: what its authors take for no block page
//
// # Lists of the user's own
//
// Import reads a copy of the lists that OONI and Censored Planet publish, and
// says of each row that it does not take as it stands what became of it. A
// Table holds such rows next to the shipped ones; their ids begin with
// ImportPrefix, and nobody here has seen their pages.
package known
