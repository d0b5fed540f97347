package contract

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// raw calls OpenNebula without the client under test: it prepares what a test
// needs, and looks at the result.
type raw struct {
	endpoint, session string
}

// ints is an array of integers as a parameter.
type ints []int

func encode(arg any) string {
	switch v := arg.(type) {
	case int:
		return fmt.Sprintf("<value><int>%d</int></value>", v)
	case bool:
		n := 0
		if v {
			n = 1
		}
		return fmt.Sprintf("<value><boolean>%d</boolean></value>", n)
	case ints:
		var b strings.Builder
		for _, n := range v {
			b.WriteString(encode(n))
		}
		return "<value><array><data>" + b.String() + "</data></array></value>"
	}
	var b bytes.Buffer
	_ = xml.EscapeText(&b, fmt.Append(nil, arg))
	return "<value><string>" + b.String() + "</string></value>"
}

type rpcValue struct {
	Text    string `xml:"string"`
	Int     *int   `xml:"i4"`
	Boolean string `xml:"boolean"`
}

// call returns the ID or the text of an answer, or OpenNebula's error.
func (r raw) call(method string, args ...any) (id int, text string, err error) {
	var body strings.Builder
	fmt.Fprintf(&body, "<methodCall><methodName>%s</methodName><params>", method)
	for _, a := range append([]any{r.session}, args...) {
		body.WriteString("<param>" + encode(a) + "</param>")
	}
	body.WriteString("</params></methodCall>")
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.endpoint, strings.NewReader(body.String()))
	if err != nil {
		return 0, "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", err
	}
	var x struct {
		Values []rpcValue `xml:"params>param>value>array>data>value"`
	}
	if err := xml.Unmarshal(b, &x); err != nil {
		return 0, "", fmt.Errorf("%s: answer %.200q: %w", method, b, err)
	}
	if len(x.Values) < 3 {
		return 0, "", fmt.Errorf("%s: answer %.200q", method, b)
	}
	if x.Values[0].Boolean != "1" {
		return 0, "", fmt.Errorf("%s: %s", method, x.Values[1].Text)
	}
	if x.Values[1].Int != nil {
		return *x.Values[1].Int, "", nil
	}
	return 0, x.Values[1].Text, nil
}

// must is call in a test's preparation.
func (r raw) must(t *testing.T, method string, args ...any) int {
	t.Helper()
	id, _, err := r.call(method, args...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
