package onesim

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestDecodeCall(t *testing.T) {
	body := `<?xml version="1.0"?><methodCall><methodName>m</methodName><params>
		<param><value>bare</value></param><param><value><string>a &lt;b&gt;</string></value></param>
		<param><value><i4>-4</i4></value></param><param><value><boolean>1</boolean></value></param>
		<param><value><array><data><value><int>1</int></value><value>x</value></data></array></value></param>
		<param><value><double>1.5</double></value></param></params></methodCall>`
	got, err := decodeCall([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	want := rpcCall{"m", []any{"bare", "a <b>", -4, true, []any{1, "x"}, 1.5}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, want %#v", got, want)
	}
}

func TestDecodeCallFaults(t *testing.T) {
	value := func(v string) string {
		return "<methodCall><methodName>m</methodName><params><param><value>" + v + "</value></param></params></methodCall>"
	}
	for _, tc := range []struct {
		body string
		code int
	}{
		{"hello", faultParse},
		{"<other/>", faultParse},
		{"<methodCall><methodName>m", faultParse},
		{value("<int>x</int>"), faultParse},
		{value("<int>99999999999</int>"), faultParse},
		{value("<boolean>2</boolean>"), faultParse},
		{value("<nil/>"), faultParse},
		{value(strings.Repeat("<array><data><value>", 40) + strings.Repeat("</value></data></array>", 40)), faultLimit},
	} {
		_, err := decodeCall([]byte(tc.body))
		var fault *rpcFault
		if !errors.As(err, &fault) || fault.code != tc.code {
			t.Errorf("%.60s: got %v, want fault %d", tc.body, err, tc.code)
		}
	}
}

func FuzzDecodeCall(f *testing.F) {
	f.Add([]byte("<methodCall><methodName>m</methodName><params><param><value><i4>1</i4></value></param></params></methodCall>"))
	f.Fuzz(func(_ *testing.T, body []byte) { _, _ = decodeCall(body) })
}
