package lab

import (
	"fmt"
	"strconv"
	"strings"
)

// Describe explains a scenario in words and as a small map, at most 80 columns
// wide.
func (s *Scenario) Describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\n", s.Name, s.Title)
	for _, line := range wrap(s.About, 78) {
		b.WriteString(line + "\n")
	}
	fmt.Fprintf(&b, "\nDate there: %s\n", s.begins.Format("2006-01-02 15:04 UTC"))
	for _, c := range s.Clients {
		mark := ""
		if c.Name == s.Client {
			mark = " (unless --client says otherwise)"
		}
		fmt.Fprintf(&b, "\nClient %s%s: AS%d %s\n", c.Name, mark, c.ASN, c.Country)
		for _, line := range wrap(c.About, 76) {
			b.WriteString("  " + line + "\n")
		}
		for _, text := range c.traits() {
			for i, line := range wrap(text, 74) {
				b.WriteString([]string{"  - ", "    "}[min(i, 1)] + line + "\n")
			}
		}
		b.WriteString("\n  you")
		column := 5
		add := func(text string) {
			if column+len(text) > 78 {
				b.WriteString("\n      ")
				column = 6
			}
			b.WriteString(text)
			column += len(text)
		}
		boxes := func(hop int) {
			for _, at := range c.Boxes {
				if at.At == hop {
					add(fmt.Sprintf(" --[box: %d rules]", len(at.Rules)))
				}
			}
			if c.Intercept != nil && c.Intercept.At == hop {
				add(" --[interceptor]")
			}
			if c.WebProxy != nil && c.WebProxy.At == hop {
				add(" --[web proxy]")
			}
			if c.Mail != nil && c.Mail.At == hop {
				add(" --[mail: " + strings.Join(c.Mail.Does, ", ") + "]")
			}
			if c.TCPProxy != nil && c.TCPProxy.At == hop {
				add(" --[TCP proxy]")
			}
			if c.SSH != nil && c.SSH.At == hop {
				add(" --[SSH interceptor]")
			}
			if c.Redirect != nil && c.Redirect.At == hop {
				add(" --[port 53 redirected]")
			}
			if c.Captive && hop == 0 {
				add(" --[captive portal]")
			}
		}
		boxes(0)
		for h := 1; h <= c.Hops; h++ {
			add(fmt.Sprintf(" -- (%d)", h))
			boxes(h)
		}
		add(" -- the world\n")
		for _, at := range c.Boxes {
			for _, r := range at.Rules {
				var b2 strings.Builder
				fmt.Fprintf(&b2, "behind router %d: %s %s", at.At, r.Layer, r.Action)
				names := append(append(append([]string{}, r.Names...), r.Contains...), r.Addresses...)
				if len(names) > 0 {
					b2.WriteString(" for " + few(names))
				}
				if r.From != "" || r.Until != "" {
					fmt.Fprintf(&b2, " (%s to %s)", or(r.From, "the beginning"), or(r.Until, "the end"))
				}
				if r.Fact != "" {
					b2.WriteString(" [" + r.Fact + "]")
				}
				for i, line := range wrap(b2.String(), 72) {
					b.WriteString([]string{"    ", "      "}[min(i, 1)] + line + "\n")
				}
			}
		}
	}
	b.WriteString("\nNetworks of the world:\n")
	for _, n := range s.Networks {
		fmt.Fprintf(&b, "  (border) --%s-- %d routers -- %s: AS%d %s\n", n.Delay, n.Hops, n.Name, n.ASN, n.Country)
	}
	b.WriteString("\nSites, and what is really done to them:\n")
	for _, t := range s.Sites {
		if t.Role != "" && len(t.Truth) == 0 {
			fmt.Fprintf(&b, "  %-28s %s\n", t.Name, t.Role)
			continue
		}
		if len(t.Truth) == 0 {
			continue
		}
		for _, r := range t.Truth {
			what := "nothing"
			if r.Interference == "confirmed" {
				what = strings.Join(r.Methods, " or ")
				if r.Trigger != "" {
					what += " by " + r.Trigger
				}
			}
			if len(r.Clients) > 0 {
				what += " for " + strings.Join(r.Clients, ", ")
			}
			if r.From != "" || r.Until != "" {
				what += " " + strings.TrimSpace(r.From+" to "+r.Until)
			}
			if r.Decidable != "local" {
				what += map[string]string{"helper": " (needs a helper)", "never": " (cannot be decided)"}[r.Decidable]
			}
			name := strings.TrimSuffix(strings.TrimPrefix(r.URL, "https://"), "/")
			for i, line := range wrap(what, 48) {
				if i > 0 {
					name = ""
				}
				fmt.Fprintf(&b, "  %-28s %s\n", name, line)
			}
		}
	}
	return b.String()
}

// traits are what is peculiar to a line besides its boxes.
func (c *Client) traits() (list []string) {
	add := func(is bool, format string, args ...any) {
		if is {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	add(c.NoIPv6, "no IPv6")
	add(c.NoIPv4, "no IPv4")
	add(c.NAT64, "IPv4 through NAT64")
	add(c.NAT, "the home router translates addresses")
	add(c.Tunnel, "a VPN is in use")
	add(c.Proxy, "the system asks for a proxy")
	add(c.clock != 0, "the device's clock is wrong by %s", c.clock)
	add(c.Trusts, "the system trusts the interceptor's root")
	for _, r := range c.Routers {
		var ports []string
		for _, s := range r.Services {
			for _, p := range s.Ports {
				ports = append(ports, strconv.Itoa(p))
			}
		}
		add(len(ports) > 0, "router %d can be talked to, at port %s", r.At, few(ports))
	}
	for _, l := range c.Lies {
		add(true, "its resolver lies: %s for %s", l.Kind, few(l.Names))
	}
	if l := c.Line; l != nil {
		add(l.Loss > 0, "loses %d of 1,000 packets%s", l.Loss, map[bool]string{true: ", in runs"}[l.Burst > 1])
		add(l.jitter > 0, "jitter up to %s", l.jitter)
		add(l.Rate > 0, "%d kbit/s behind a queue of %d bytes", l.Rate, l.Queue)
		add(l.MTU > 0, "swallows packets above %d bytes", l.MTU)
		add(l.sleep > 0, "sleeps for %s every %s", l.sleep, l.every)
		add(l.MaxFlows > 0, "a NAT table of %d flows", l.MaxFlows)
	}
	return list
}

// few are the first names of a list.
func few(names []string) string {
	if len(names) > 3 {
		names = append(names[:3:3], fmt.Sprintf("and %d more", len(names)-3))
	}
	return strings.Join(names, ", ")
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func wrap(text string, width int) []string {
	var out []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			out = append(out, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		out = append(out, line)
	}
	return out
}
