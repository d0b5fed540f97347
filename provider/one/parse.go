package one

import (
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// xmlAttrs collects the single-valued attributes of a template.
type xmlAttrs struct{ singles map[string]string }

// UnmarshalXML implements xml.Unmarshaler. Vectors are left out; of repeated
// attributes the first counts, as in oned.
func (x *xmlAttrs) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	x.singles = map[string]string{}
	for {
		tok, err := d.Token()
		if err != nil {
			return err
		}
		switch t := tok.(type) {
		case xml.StartElement:
			value, single, err := readAttribute(d)
			if err != nil {
				return err
			}
			if _, seen := x.singles[t.Name.Local]; single && !seen {
				x.singles[t.Name.Local] = value
			}
		case xml.EndElement:
			return nil
		}
	}
}

// readAttribute reads to the end of the element. It is not single if it has
// members.
func readAttribute(d *xml.Decoder) (value string, single bool, err error) {
	var text strings.Builder
	single = true
	for {
		tok, err := d.Token()
		if err != nil {
			return "", false, err
		}
		switch t := tok.(type) {
		case xml.CharData:
			text.Write(t)
		case xml.StartElement:
			single = false
			if err := d.Skip(); err != nil {
				return "", false, err
			}
		case xml.EndElement:
			return text.String(), single, nil
		}
	}
}

// optionalID parses an ID that may be empty, which is -1.
func optionalID(s string) (int, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, err
	}
	if n < -1 {
		return 0, errors.New("negative ID")
	}
	return n, nil
}

// stateName is the name of a state, or its number if a later OpenNebula has more.
func stateName(names []string, state int) string {
	if state >= 0 && state < len(names) {
		return names[state]
	}
	return fmt.Sprintf("STATE_%d", state)
}
