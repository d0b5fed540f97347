package onesim

import (
	"fmt"
	"strings"
)

// token is a terminal of oned's template grammar; its text is what bison prints in an error.
type token string

const (
	tokEqual      token = "EQUAL"
	tokComma      token = "COMMA"
	tokOpen       token = "OBRACKET"
	tokClose      token = "CBRACKET"
	tokEqualEmpty token = "EQUAL_EMPTY"
	tokString     token = "STRING"
	tokVariable   token = "VARIABLE"
	tokEnd        token = "$end"
)

// parseTemplate reads a template in oned's text or XML syntax. The error carries oned's text.
func parseTemplate(text string) (*template, error) {
	if strings.HasPrefix(strings.TrimSpace(text), "<") {
		return parseXMLTemplate(text)
	}
	p := &parser{in: text, out: &template{}}
	for {
		p.skip(true)
		if p.pos >= len(p.in) {
			return p.out, nil
		}
		if err := p.attribute(); err != nil {
			return nil, err
		}
	}
}

type parser struct {
	in  string
	pos int
	out *template
}

// skip passes blanks and, where they mean nothing, newlines and comments.
func (p *parser) skip(newlines bool) {
	for p.pos < len(p.in) {
		switch c := p.in[p.pos]; {
		case c == ' ' || c == '\t' || c == '\r':
		case newlines && c == '\n':
		case newlines && c == '#':
			for p.pos < len(p.in) && p.in[p.pos] != '\n' {
				p.pos++
			}
			continue
		default:
			return
		}
		p.pos++
	}
}

// unexpected words the error as bison does. Columns count from the start of the line; oned leaves the line 0.
func (p *parser) unexpected(expecting string) error {
	got, width := p.peek()
	column := p.pos - (strings.LastIndexByte(p.in[:p.pos], '\n') + 1)
	return fail(CodeInternal, "Parse error: syntax error, unexpected %s, expecting %s at line 0, columns %d:%d",
		got, expecting, column, column+width)
}

func (p *parser) peek() (token, int) {
	if p.pos >= len(p.in) {
		return tokEnd, 1
	}
	switch c := p.in[p.pos]; {
	case c == '=':
		return tokEqual, 1
	case c == ',':
		return tokComma, 1
	case c == '[':
		return tokOpen, 1
	case c == ']':
		return tokClose, 1
	case isName(c):
		end := p.pos
		for end < len(p.in) && isName(p.in[end]) {
			end++
		}
		return tokVariable, end - p.pos
	}
	return tokString, 1
}

func isName(c byte) bool {
	return c == '_' || c == '-' || c == '.' || c == '/' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func (p *parser) name(expecting string) (string, error) {
	got, width := p.peek()
	if got != tokVariable {
		return "", p.unexpected(expecting)
	}
	name := strings.ToUpper(p.in[p.pos : p.pos+width])
	p.pos += width
	return name, nil
}

func (p *parser) equal() error {
	p.skip(false)
	if got, _ := p.peek(); got != tokEqual {
		return p.unexpected(fmt.Sprintf("%s or %s", tokEqual, tokEqualEmpty))
	}
	p.pos++
	p.skip(false)
	return nil
}

func (p *parser) attribute() error {
	expecting := string(tokVariable)
	if len(p.out.attrs) > 0 {
		expecting = fmt.Sprintf("%s or %s", tokEnd, tokVariable)
	}
	name, err := p.name(expecting)
	if err != nil {
		return err
	}
	if err := p.equal(); err != nil {
		return err
	}
	if p.pos < len(p.in) && p.in[p.pos] == '[' {
		p.pos++
		return p.vector(name)
	}
	if p.pos < len(p.in) && p.in[p.pos] == '\n' {
		p.out.add(attribute{name: name})
		return nil
	}
	value, err := p.value(" \t\r\n", fmt.Sprintf("%s or %s", tokOpen, tokString))
	if err != nil {
		return err
	}
	p.out.add(attribute{name: name, value: value})
	return nil
}

func (p *parser) vector(name string) error {
	a := attribute{name: name, vector: true}
	p.skip(true)
	if p.pos < len(p.in) && p.in[p.pos] == ']' {
		p.pos++
		p.out.add(a)
		return nil
	}
	expecting := fmt.Sprintf("%s or %s", tokClose, tokVariable)
	for {
		p.skip(true)
		key, err := p.name(expecting)
		if err != nil {
			return err
		}
		if err := p.equal(); err != nil {
			return err
		}
		value, err := p.value(" \t\r\n,]", string(tokString))
		if err != nil {
			return err
		}
		a.set(key, value)
		p.skip(true)
		switch got, _ := p.peek(); got {
		case tokComma:
			p.pos++
		case tokClose:
			p.pos++
			p.out.add(a)
			return nil
		default:
			return p.unexpected(fmt.Sprintf("%s or %s", tokComma, tokClose))
		}
		expecting = string(tokVariable)
	}
}

// value reads a quoted string, or a bare one up to any of the stop bytes.
func (p *parser) value(stop, expecting string) (string, error) {
	if p.pos < len(p.in) && p.in[p.pos] == '"' {
		return p.quoted(expecting)
	}
	start := p.pos
	for p.pos < len(p.in) && strings.IndexByte(stop, p.in[p.pos]) < 0 {
		p.pos++
	}
	if p.pos == start {
		return "", p.unexpected(expecting)
	}
	return p.in[start:p.pos], nil
}

func (p *parser) quoted(expecting string) (string, error) {
	var b strings.Builder
	for i := p.pos + 1; i < len(p.in); i++ {
		switch c := p.in[i]; {
		case c == '"':
			p.pos = i + 1
			return b.String(), nil
		case c == '\\' && i+1 < len(p.in) && p.in[i+1] == '"':
			i++
			b.WriteByte(p.in[i])
		default:
			b.WriteByte(c)
		}
	}
	p.pos = len(p.in)
	return "", p.unexpected(expecting)
}
