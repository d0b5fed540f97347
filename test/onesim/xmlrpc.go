package onesim

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Fault codes of the XML-RPC library that oned uses (xmlrpc-c).
const (
	faultType       = -501
	faultParse      = -503
	faultNoMethod   = -506
	faultLimit      = -509
	maxNestedValues = 32
)

// rpcFault is an XML-RPC fault: the call never reached oned's own code.
type rpcFault struct {
	code int
	text string
}

func (f *rpcFault) Error() string { return fmt.Sprintf("fault %d: %s", f.code, f.text) }

// rpcCall is a decoded methodCall. A param is a string, int, bool, float64 or []any.
type rpcCall struct {
	method string
	params []any
}

// decodeCall reads a methodCall document.
func decodeCall(body []byte) (rpcCall, error) {
	var call rpcCall
	dec := xml.NewDecoder(bytes.NewReader(body))
	dec.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	root, err := nextStart(dec)
	if err != nil {
		return call, &rpcFault{faultParse, "Call XML not a proper XML-RPC call.  Call is not valid XML.  syntax error"}
	}
	if root.Name.Local != "methodCall" {
		return call, &rpcFault{faultParse, "Call XML not a proper XML-RPC call.  " +
			"XML-RPC call should be a <methodCall> element.  Instead, it is a <" + root.Name.Local + "> element"}
	}
	var doc struct {
		Method string `xml:"methodName"`
		Params []struct {
			Value rpcValue `xml:"value"`
		} `xml:"params>param"`
	}
	if err := dec.DecodeElement(&doc, &root); err != nil {
		var fault *rpcFault
		if errors.As(err, &fault) {
			return call, fault
		}
		return call, &rpcFault{faultParse, "Call XML not a proper XML-RPC call.  Call is not valid XML.  " + err.Error()}
	}
	call.method = strings.TrimSpace(doc.Method)
	for _, p := range doc.Params {
		call.params = append(call.params, p.Value.v)
	}
	return call, nil
}

func nextStart(dec *xml.Decoder) (xml.StartElement, error) {
	for {
		tok, err := dec.Token()
		if err != nil {
			return xml.StartElement{}, err
		}
		if start, ok := tok.(xml.StartElement); ok {
			return start, nil
		}
	}
}

// rpcValue decodes a <value> element, typed or bare.
type rpcValue struct{ v any }

func (r *rpcValue) UnmarshalXML(dec *xml.Decoder, _ xml.StartElement) error {
	v, err := decodeValue(dec, 0)
	r.v = v
	return err
}

// decodeValue reads up to and including the end of the enclosing <value>.
func decodeValue(dec *xml.Decoder, depth int) (any, error) {
	if depth > maxNestedValues {
		return nil, &rpcFault{faultLimit, "Nested too deeply"}
	}
	var text strings.Builder
	var typed any
	seen := false
	for {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		switch tok := tok.(type) {
		case xml.CharData:
			text.Write(tok)
		case xml.StartElement:
			if typed, err = decodeTyped(dec, tok, depth); err != nil {
				return nil, err
			}
			seen = true
		case xml.EndElement:
			if seen {
				return typed, nil
			}
			return text.String(), nil
		}
	}
}

func decodeTyped(dec *xml.Decoder, start xml.StartElement, depth int) (any, error) {
	if start.Name.Local == "array" {
		return decodeArray(dec, depth)
	}
	var text string
	if err := dec.DecodeElement(&text, &start); err != nil {
		return nil, err
	}
	switch start.Name.Local {
	case "string":
		return text, nil
	case "int", "i4", "i8":
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil || n != int64(int32(n)) {
			return nil, &rpcFault{faultParse, "Call XML not a proper XML-RPC call.  <" + start.Name.Local + "> XML element content is not an integer"}
		}
		return int(n), nil
	case "boolean":
		switch strings.TrimSpace(text) {
		case "0":
			return false, nil
		case "1":
			return true, nil
		}
		return nil, &rpcFault{faultParse, "Call XML not a proper XML-RPC call.  <boolean> XML element content must be either '0' or '1'"}
	case "double":
		f, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil {
			return nil, &rpcFault{faultParse, "Call XML not a proper XML-RPC call.  <double> XML element content is not a number"}
		}
		return f, nil
	}
	return nil, &rpcFault{faultParse, "Call XML not a proper XML-RPC call.  Unknown value type -- XML element is named <" + start.Name.Local + ">"}
}

func decodeArray(dec *xml.Decoder, depth int) (any, error) {
	out := []any{}
	for {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if tok.Name.Local != "value" {
				continue // <data>
			}
			v, err := decodeValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		case xml.EndElement:
			if tok.Name.Local == "array" {
				return out, nil
			}
		}
	}
}

const (
	envelopeHead = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<methodResponse>\r\n"
	arrayHead    = envelopeHead + "<params>\r\n<param><value><array><data>\r\n"
	arrayTail    = "</data></array></value></param>\r\n</params>\r\n</methodResponse>\r\n"
)

// escape writes text with what XML needs escaped. Answers run to megabytes, so it goes by hand.
func escape(w io.StringWriter, text string) {
	from := 0
	for i := range len(text) {
		var with string
		switch text[i] {
		case '&':
			with = "&amp;"
		case '<':
			with = "&lt;"
		case '>':
			with = "&gt;"
		case '\r':
			with = "&#x0d;"
		default:
			continue
		}
		_, _ = w.WriteString(text[from:i])
		_, _ = w.WriteString(with)
		from = i + 1
	}
	_, _ = w.WriteString(text[from:])
}

// encodeValue writes the answer of a call that succeeded: value is a string or an int.
func encodeValue(value any) []byte {
	var b bytes.Buffer
	b.WriteString(arrayHead + "<value><boolean>1</boolean></value>\r\n")
	switch v := value.(type) {
	case string:
		b.Grow(len(v) + len(v)/2)
		b.WriteString("<value><string>")
		escape(&b, v)
		b.WriteString("</string></value>\r\n")
	case int:
		fmt.Fprintf(&b, "<value><i4>%d</i4></value>\r\n", v)
	}
	b.WriteString("<value><i4>0</i4></value>\r\n" + arrayTail)
	return b.Bytes()
}

// encodeError writes oned's own kind of failure: an array of five.
func encodeError(e *Error) []byte {
	var b bytes.Buffer
	b.WriteString(arrayHead + "<value><boolean>0</boolean></value>\r\n<value><string>")
	escape(&b, e.Message)
	fmt.Fprintf(&b, "</string></value>\r\n<value><i4>%d</i4></value>\r\n<value><i4>%d</i4></value>\r\n"+
		"<value><i8>-1</i8></value>\r\n", e.Code, e.ObjectID)
	b.WriteString(arrayTail)
	return b.Bytes()
}

func encodeFault(f *rpcFault) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, envelopeHead+"<fault>\r\n<value><struct>\r\n<member><name>faultCode</name>\r\n"+
		"<value><i4>%d</i4></value></member>\r\n<member><name>faultString</name>\r\n<value><string>", f.code)
	escape(&b, f.text)
	b.WriteString("</string></value></member>\r\n</struct></value>\r\n</fault>\r\n</methodResponse>\r\n")
	return b.Bytes()
}
