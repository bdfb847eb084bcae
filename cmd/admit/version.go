package main

import (
	"runtime"
	"runtime/debug"
)

// version is that of the module, the commit and Go, as far as they are known.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(devel), " + runtime.Version()
	}
	text := info.Main.Version
	if text == "" {
		text = "(devel)"
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if commit := settings["vcs.revision"]; commit != "" {
		text += ", commit " + commit
		if settings["vcs.modified"] == "true" {
			text += " with changes"
		}
	}
	return text + ", " + info.GoVersion
}
