package onesim

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// exchange is one recorded call.
type exchange struct {
	number            int
	name              string
	request, response []byte
}

func loadExchanges(t *testing.T) []exchange {
	t.Helper()
	f, err := os.Open("testdata/transcripts.txtar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(gz)
	if err != nil {
		t.Fatal(err)
	}
	var out []exchange
	for _, file := range txtar.Parse(data).Files {
		if name, ok := strings.CutSuffix(file.Name, ".request.xml"); ok {
			number, err := strconv.Atoi(name[:3])
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, exchange{number: number, name: name, request: file.Data})
			continue
		}
		out[len(out)-1].response = file.Data
	}
	return out
}

// replayer sends recorded calls to a simulator and knows how tokens are called there.
type replayer struct {
	t        *testing.T
	sim      *Sim
	endpoint string
	tokens   *strings.Replacer
	renamed  []string
}

// recordedMACs are the addresses that the recorded front-end drew at random, in the order in which it needed them;
// the zeros are those of two NICs on a SHARED range, which no recording shows.
var recordedMACs = []uint32{0x2e2fccb5, 0x424e5974, 0x3090207e, 0, 0, 0xfcdf4602, 0xf072819a}

func newReplayer(t *testing.T) *replayer {
	t.Helper()
	macs := recordedMACs
	sim, err := New(Options{ManualDrivers: true, RandomMAC: func() uint32 {
		if len(macs) == 0 {
			t.Error("the simulator draws more MAC addresses than the recorded front-end")
			return 0
		}
		next := macs[0]
		macs = macs[1:]
		return next
	}})
	if err != nil {
		t.Fatal(err)
	}
	endpoint, stop, err := sim.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return &replayer{t: t, sim: sim, endpoint: endpoint, tokens: strings.NewReplacer()}
}

func (r *replayer) post(body []byte) []byte {
	r.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, r.endpoint, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// call sends an unrecorded call and fails the test when it does not succeed.
func (r *replayer) call(session, method string, args ...any) {
	r.t.Helper()
	out := parseAnswer(r.post(encodeRequest(session, method, args...)))
	if len(out.values) == 0 || out.values[0] != "boolean 1" {
		r.t.Fatalf("unrecorded call %s %v: %v", method, args, out)
	}
}

func encodeRequest(session, method string, args ...any) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<methodCall><methodName>%s</methodName><params>", method)
	for _, a := range append([]any{session}, args...) {
		b.WriteString("<param><value>")
		switch a := a.(type) {
		case string:
			b.WriteString("<string>")
			_ = xml.EscapeText(&b, []byte(a))
			b.WriteString("</string>")
		case int:
			fmt.Fprintf(&b, "<i4>%d</i4>", a)
		case bool:
			fmt.Fprintf(&b, "<boolean>%d</boolean>", flag(a))
		}
		b.WriteString("</value></param>")
	}
	b.WriteString("</params></methodCall>")
	return b.Bytes()
}

// answerDoc is a response: typed values, with a document among them taken apart.
type answerDoc struct {
	values []string
	doc    *node
	raw    string // when it is no XML-RPC
}

func (a answerDoc) String() string {
	if a.raw != "" {
		return a.raw
	}
	return strings.Join(a.values, " | ")
}

// node is an element of a document.
type node struct {
	name     string
	text     string
	children []*node
}

func parseXML(text string) (*node, error) {
	dec := xml.NewDecoder(strings.NewReader(text))
	root := &node{}
	stack := []*node{root}
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		top := stack[len(stack)-1]
		switch tok := tok.(type) {
		case xml.StartElement:
			n := &node{name: tok.Name.Local}
			top.children = append(top.children, n)
			stack = append(stack, n)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			top.text += string(tok)
		}
	}
	if len(root.children) != 1 {
		return nil, fmt.Errorf("%d root elements", len(root.children))
	}
	return root.children[0], nil
}

var valueTypes = map[string]bool{"boolean": true, "string": true, "i4": true, "i8": true, "int": true}

func parseAnswer(body []byte) answerDoc {
	var out answerDoc
	root, err := parseXML(string(body))
	if err != nil {
		out.raw = string(bytes.TrimSpace(body))
		return out
	}
	var walk func(n *node)
	walk = func(n *node) {
		if valueTypes[n.name] {
			if strings.HasPrefix(n.text, "<") {
				if doc, err := parseXML(n.text); err == nil {
					out.doc = doc
					out.values = append(out.values, n.name+" (document)")
					return
				}
			}
			out.values = append(out.values, n.name+" "+n.text)
		}
		for _, c := range n.children {
			walk(c)
		}
	}
	walk(root)
	return out
}

// diff tells the first differences of two answers.
func diff(want, got answerDoc) []string {
	if want.String() != got.String() {
		return []string{fmt.Sprintf("answer\n  recorded: %s\n  got:      %s", want, got)}
	}
	var out []string
	if want.doc != nil {
		diffNodes(want.doc.name, want.doc, got.doc, &out)
	}
	return out
}

func diffNodes(path string, want, got *node, out *[]string) {
	if want.name != got.name || len(want.children) == 0 && len(got.children) == 0 && want.text != got.text {
		*out = append(*out, fmt.Sprintf("%s: recorded <%s>%q, got <%s>%q", path, want.name, want.text, got.name, got.text))
		return
	}
	for i := range max(len(want.children), len(got.children)) {
		switch {
		case i >= len(want.children):
			*out = append(*out, fmt.Sprintf("%s: got more: <%s>%q", path, got.children[i].name, got.children[i].text))
			return
		case i >= len(got.children):
			*out = append(*out, fmt.Sprintf("%s: recorded more: <%s>%q", path, want.children[i].name, want.children[i].text))
			return
		}
		w, g := want.children[i], got.children[i]
		diffNodes(path+"/"+w.name, w, g, out)
		if w.name != g.name {
			return
		}
	}
}

var methodName = regexp.MustCompile(`<methodName>([^<]*)</methodName>`)

// TestReplay sends every recorded call, in order, to a fresh simulator and compares the answers. What differs by nature
// is in differences; what the simulator does not have is in notImplemented; what the recorder did unseen is in steps.
func TestReplay(t *testing.T) {
	exchanges := loadExchanges(t)
	r := newReplayer(t)
	replayed, equal := 0, 0
	for _, e := range exchanges {
		if step := steps[e.number]; step != nil {
			step(r)
		}
		if inFlight[e.number] == "" {
			r.sim.Settle()
		}
		if m := methodName.FindSubmatch(e.request); m != nil && notImplemented[string(m[1])] != "" {
			continue
		}
		replayed++
		request := r.tokens.Replace(string(e.request))
		if strings.Contains(e.name, "empty-body") {
			request = ""
		}
		want, got := parseAnswer(e.response), parseAnswer(r.post([]byte(request)))
		r.learnToken(e, want, got)
		for i := range differences {
			differences[i].apply(e, &want)
			differences[i].apply(e, &got)
		}
		if list := diff(want, got); len(list) > 0 {
			t.Errorf("%s:\n%s", e.name, strings.Join(list[:min(len(list), 6)], "\n"))
			continue
		}
		equal++
	}
	t.Logf("replayed %d of %d, equal %d", replayed, len(exchanges), equal)
	for i := range differences {
		if differences[i].used == 0 {
			t.Errorf("difference %q is never needed", differences[i].path)
		}
	}
}

// learnToken remembers what a random login token of the recording is called here.
func (r *replayer) learnToken(e exchange, want, got answerDoc) {
	if !strings.Contains(e.name, "one.user.login") || len(want.values) != 3 || len(got.values) != 3 {
		return
	}
	was, is := strings.TrimPrefix(want.values[1], "string "), strings.TrimPrefix(got.values[1], "string ")
	if len(was) == 64 && len(is) == 64 && was != is {
		r.renamed = append(r.renamed, was, is)
		r.tokens = strings.NewReplacer(r.renamed...)
	}
}
