package onesim

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// method is one of oned's methods. params names the types of what follows the session: i, s, b, a (array);
// those behind a "|" may be left out.
type method struct {
	name   string
	params string
	write  bool
	run    func(*call) (any, error)
}

// call is one authenticated request. It lives no longer than the method runs, under the Sim's lock.
type call struct {
	*Sim
	method  *method
	args    []any
	user    *user
	groups  []int
	request int
	now     time.Time
}

func (c *call) int(i int) int { v, _ := c.arg(i).(int); return v }

func (c *call) str(i int) string { v, _ := c.arg(i).(string); return v }

func (c *call) bool(i int) bool { v, _ := c.arg(i).(bool); return v }

func (c *call) intOr(i, missing int) int {
	if v, ok := c.arg(i).(int); ok {
		return v
	}
	return missing
}

func (c *call) arg(i int) any {
	if i < len(c.args) {
		return c.args[i]
	}
	return nil
}

func (c *call) admin() bool { return c.user.id == 0 || slices.Contains(c.groups, 0) }

// checkParams compares what came with what the method takes, as xmlrpc-c does when oned asks for a parameter.
func checkParams(spec string, args []any) *rpcFault {
	optional := false
	i := 0
	for _, want := range spec {
		if want == '|' {
			optional = true
			continue
		}
		if i >= len(args) {
			if optional {
				return nil
			}
			return &rpcFault{faultType, "Not enough parameters"}
		}
		if text := mismatch(want, args[i]); text != "" {
			return &rpcFault{faultType, text}
		}
		i++
	}
	return nil
}

func mismatch(want rune, arg any) string {
	ok := true
	name := ""
	switch want {
	case 'i':
		_, ok = arg.(int)
		name = "integer"
	case 's':
		_, ok = arg.(string)
		name = "a string"
	case 'b':
		_, ok = arg.(bool)
		name = "boolean"
	case 'a':
		_, ok = arg.([]any)
		name = "array"
	}
	if ok {
		return ""
	}
	return fmt.Sprintf("Parameter that is supposed to be %s is not", name)
}

func noMethod(name string) *rpcFault {
	return &rpcFault{faultNoMethod, "Method '" + name + "' not defined"}
}

// execute runs a method: a writer alone among writers for as long as its latency lasts, readers side by side.
// The context only ends waiting; a method that has begun is finished.
func (s *Sim) execute(ctx context.Context, rc rpcCall) (any, error) {
	m := s.methods[rc.method]
	if m == nil {
		return nil, noMethod(rc.method)
	}
	if m.write {
		select {
		case s.writer <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		defer func() { <-s.writer }()
	}
	if err := s.delay(ctx, m.name); err != nil {
		return nil, err
	}
	s.catchUp()
	if m.write {
		s.mu.Lock()
		defer s.mu.Unlock()
		defer s.runJobs(false)
	} else {
		s.mu.RLock()
		defer s.mu.RUnlock()
	}
	return s.invoke(m, rc.params)
}

func (s *Sim) invoke(m *method, params []any) (any, error) {
	if len(params) == 0 {
		return nil, &rpcFault{faultType, "Not enough parameters"}
	}
	session, ok := params[0].(string)
	if !ok {
		return nil, &rpcFault{faultType, "Parameter that is supposed to be a string is not"}
	}
	c := &call{Sim: s, method: m, args: params[1:], request: int(s.requestID.Add(1)), now: time.Now()}
	if !s.login(c, session) {
		return nil, prefixed(m.name, fail(CodeAuthentication, "User couldn't be authenticated, aborting call."))
	}
	if fault := checkParams(m.params, c.args); fault != nil {
		return nil, fault
	}
	value, err := m.run(c)
	if err != nil {
		return nil, prefixed(m.name, err)
	}
	return value, nil
}

// prefixed puts the method's name in front of the message, as oned does.
func prefixed(name string, err error) error {
	e, ok := err.(*Error) //nolint:errorlint // methods return *Error itself, never wrapped
	if !ok {
		e = fail(CodeInternal, "%s", err)
	}
	out := *e
	out.Message = "[" + name + "] " + e.Message
	return &out
}

func (s *Sim) delay(ctx context.Context, name string) error {
	d, ok := s.opts.Latency[name]
	if !ok {
		d = s.opts.Latency["*"]
	}
	return sleep(ctx, d)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// methodTable gathers the methods of all files.
func (s *Sim) methodTable() map[string]*method {
	out := map[string]*method{}
	for _, list := range [][]method{
		systemMethods(), vnetMethods(), addressRangeMethods(), leaseMethods(), reserveMethods(), vmMethods(),
		vmPoolMethods(), vmActionMethods(), nicMethods(), vrouterMethods(), templateMethods(), documentMethods(),
		hostMethods(), clusterMethods(), userMethods(), tokenMethods(), groupMethods(), quotaMethods(), aclMethods(),
		commonMethods(),
	} {
		for _, m := range list {
			out[m.name] = &m
		}
	}
	return out
}

// Methods lists the methods that are implemented, sorted.
func (s *Sim) Methods() []string {
	out := make([]string, 0, len(s.methods))
	for name := range s.methods {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
