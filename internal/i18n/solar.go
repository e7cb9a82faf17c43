package i18n

import "time"

// breaks are the Solar Hijri years at which the 33-year leap cycle is broken,
// from K. M. Borkowski, "The Persian calendar for 3000 years", Earth, Moon,
// and Planets 74 (1996). Between 1178 and 1633 his rule agrees with the
// astronomical definition that Iran's official calendar follows.
var breaks = [...]int{-61, 9, 38, 199, 426, 686, 756, 818, 1111, 1181, 1210, 1635, 2060, 2097, 2192, 2262, 2324, 2394, 2456, 3178}

// SolarHijri is the date of t, in its own location, in Iran's official
// calendar. ok is false outside the years in which the rule is known to hold
// (1178 to 1633, that is from 1799 to 2254).
func SolarHijri(t time.Time) (year, month, day int, ok bool) {
	gy, gm, gd := t.Date()
	date := time.Date(gy, gm, gd, 0, 0, 0, 0, time.UTC)
	year = gy - 621
	if year < 1179 || year > 1633 {
		return 0, 0, 0, false
	}
	leap, march := nowruz(year)
	days := int(date.Sub(time.Date(gy, time.March, march, 0, 0, 0, 0, time.UTC)) / (24 * time.Hour))
	switch {
	case days >= 0 && days <= 185:
		return year, days/31 + 1, days%31 + 1, true
	case days >= 0:
		days -= 186
	default:
		// Before Nowruz: the last months of the year before, of which the
		// tenth begins 179 days (180 if it is leap) before Nowruz less 6
		// months of 31 and 3 of 30 days.
		year--
		days += 179
		if leap == 1 {
			days++
		}
	}
	return year, 7 + days/30, days%30 + 1, true
}

// nowruz gives the day of March on which the year begins, and the number of
// years since the last leap year (0: this one is leap).
func nowruz(year int) (leap, march int) {
	gy := year + 621
	leapJ := -14
	previous := breaks[0]
	jump := 0
	for _, b := range breaks[1:] {
		jump = b - previous
		if year < b {
			break
		}
		leapJ += jump/33*8 + jump%33/4
		previous = b
	}
	n := year - previous
	leapJ += n/33*8 + (n%33+3)/4
	if jump%33 == 4 && jump-n == 4 {
		leapJ++
	}
	leapG := gy/4 - (gy/100+1)*3/4 - 150
	march = 20 + leapJ - leapG
	if jump-n < 6 {
		n = n - jump + (jump+4)/33*33
	}
	leap = ((n+1)%33 - 1) % 4
	if leap == -1 {
		leap = 4
	}
	return leap, march
}
