package evidence

import "time"

var begun = time.Now()

func nanos() float64 { return float64(time.Since(begun)) }
