package shop

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// joiner puts ES modules into one file, each after what it imports, so that a
// browser needs one request where it would need eleven, one after another.
//
// It is no parser. It relies on how the modules here are written, and refuses
// what would break: one import per line, by name and unrenamed; no name declared
// at the top level of two modules; no template literal over several lines.
type joiner struct {
	out   bytes.Buffer
	done  []string
	open  []string          // the chain of imports being followed, to tell a cycle
	owner map[string]string // top-level name → module
}

var (
	importLine  = regexp.MustCompile(`^import (.*) from "\./([a-z]+\.js)";$`)
	importNames = regexp.MustCompile(`^\{[\w, ]+\}$`)
	declaration = regexp.MustCompile(`^(?:export )?(?:async )?(?:const|let|class|function\*?) (\w+)`)
)

func (j *joiner) add(name string) error {
	if slices.Contains(j.done, name) {
		return nil
	}
	if slices.Contains(j.open, name) {
		return fmt.Errorf("%w: modules import each other: %s", ErrSource, strings.Join(append(j.open, name), " → "))
	}
	body, err := readSource(name)
	if err != nil {
		return err
	}
	j.open = append(j.open, name)
	var own []string
	for line := range strings.Lines(string(body)) {
		if m := importLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			if !importNames.MatchString(m[1]) || strings.Contains(m[1], " as ") {
				return fmt.Errorf("%w: %s: import by name only: %s", ErrSource, name, line)
			}
			if err := j.add(m[2]); err != nil {
				return err
			}
			continue
		}
		if line, err = j.keep(name, line); err != nil {
			return err
		}
		own = append(own, line)
	}
	for _, line := range own {
		j.out.WriteString(line)
	}
	j.open = j.open[:len(j.open)-1]
	j.done = append(j.done, name)
	return nil
}

// keep is what remains of a line in the joined file, possibly nothing.
func (j *joiner) keep(name, line string) (string, error) {
	if strings.Count(line, "`")%2 != 0 {
		return "", fmt.Errorf("%w: %s: template literal over several lines: %s", ErrSource, name, line)
	}
	if m := declaration.FindStringSubmatch(line); m != nil {
		if first, taken := j.owner[m[1]]; taken {
			return "", fmt.Errorf("%w: %s is declared in %s and in %s", ErrSource, m[1], first, name)
		}
		j.owner[m[1]] = name
	}
	if len(j.open) > 1 {
		line = strings.TrimPrefix(line, "export ")
	}
	if line = squeezeLine(strings.TrimSpace(line)); line == "" {
		return "", nil
	}
	return line + "\n", nil
}

const (
	needsNoSpace = "{}()[];,=<>?:&|!" // around these; + and - may stand beside themselves
	beforeRegexp = "(=,:[!&|?{};"     // a slash after one of these begins a regular expression
)

// squeezeLine leaves out of a line of JavaScript the spaces that mean nothing and
// the comment at its end. Strings and regular expressions stay as they are, and
// from a template literal on the whole rest of the line does.
func squeezeLine(line string) string {
	var out []byte
	last := func() byte {
		if len(out) == 0 {
			return ';'
		}
		return out[len(out)-1]
	}
	for i := 0; i < len(line); {
		c := line[i]
		switch {
		case c == '`':
			return string(append(out, line[i:]...))
		case strings.HasPrefix(line[i:], "//"):
			return strings.TrimSpace(string(out))
		case c == '"', c == '\'', c == '/' && (strings.IndexByte(beforeRegexp, last()) >= 0 || strings.HasSuffix(string(out), "return ")):
			end := i + literal(line[i:])
			out = append(out, line[i:end]...)
			i = end
			continue
		case c == ' ':
			if strings.IndexByte(needsNoSpace, last()) < 0 && strings.IndexByte(needsNoSpace, line[i+1]) < 0 {
				out = append(out, c)
			}
		default:
			out = append(out, c)
		}
		i++
	}
	return string(out)
}

// literal is the length of the string or regular expression that text begins with.
func literal(text string) int {
	class := false // within [ ] of a regular expression a slash is a slash
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case text[0] == '/' && (c == '[' || c == ']'):
			class = c == '['
		case c == text[0] && !class:
			return i + 1
		}
	}
	return len(text)
}
