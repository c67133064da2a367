package app

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// Logger writes to w in the style that the configuration asks for.
func (c Config) Logger(w io.Writer) *slog.Logger {
	style, level, err := c.logStyle()
	if err != nil {
		style, level = "text", slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: level}
	if style == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

func (c Config) logStyle() (style string, level slog.Level, err error) {
	style, name, _ := strings.Cut(c.Log, ",")
	if style != "json" && style != "text" {
		return "", 0, fmt.Errorf("%q is neither json nor text", style)
	}
	if name == "" {
		return style, slog.LevelInfo, nil
	}
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return "", 0, fmt.Errorf("%q is not debug, info, warn or error", name)
	}
	return style, level, nil
}
