package cli

import "golang.org/x/sys/windows"

func terminal(fd uintptr) bool {
	var mode uint32
	return windows.GetConsoleMode(windows.Handle(fd), &mode) == nil
}

// silence keeps a console from showing what is typed until restore is called.
func silence(fd uintptr) (restore func(), err error) {
	var was uint32
	if err := windows.GetConsoleMode(windows.Handle(fd), &was); err != nil {
		return nil, err
	}
	quiet := was&^windows.ENABLE_ECHO_INPUT | windows.ENABLE_LINE_INPUT | windows.ENABLE_PROCESSED_INPUT
	if err := windows.SetConsoleMode(windows.Handle(fd), quiet); err != nil {
		return nil, err
	}
	return func() { windows.SetConsoleMode(windows.Handle(fd), was) }, nil
}
