package onesim

// Update types of oned.
const (
	updateReplace = 0
	updateAppend  = 1
)

// updated is what a template becomes. A user may not set restricted attributes, and keeps those that are there
// when he replaces the rest.
func (c *call) updated(old *template, text string, how int, restricted string) (*template, error) {
	if how != updateReplace && how != updateAppend {
		return nil, fail(CodeXMLRPCAPI, "Wrong update type")
	}
	t, err := parseTemplate(text)
	if err != nil {
		return nil, cannotUpdate(err)
	}
	if !c.admin() && restricted != "" {
		if name := c.restricted(restricted, t); name != "" {
			return nil, fail(CodeInternal, "Cannot update template. User Template includes a restricted attribute %s", name)
		}
	}
	out := &template{}
	if how == updateAppend {
		out = old.clone()
	} else if !c.admin() && restricted != "" {
		for _, name := range c.configured(restricted) {
			for _, a := range old.clone().take(name) {
				out.add(a)
			}
		}
	}
	out.merge(t)
	return out, nil
}

func cannotUpdate(err error) error {
	e, ok := err.(*Error) //nolint:errorlint // parseTemplate's only type
	if !ok {
		return err
	}
	return fail(e.Code, "Cannot update template. %s", e.Message)
}
