package offer

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
)

// Attributes of a network besides the settings.
const (
	prefix = "ONELB_"
	// AttributePool makes the network an offer; it is the pool's name.
	AttributePool = prefix + "POOL"
	// AttributeError is where we say what is wrong with the offer.
	AttributeError = prefix + "ERROR"
	// attributeClusters limits the offer to clusters of these names.
	attributeClusters = prefix + "CLUSTERS"
)

// Network is a virtual network, no reservation, that our user may use.
type Network struct {
	ID         int32
	Name       string
	Owner      string
	Attributes map[string]string
}

func (n Network) String() string {
	return fmt.Sprintf("virtual network %q (%d) of %s", n.Name, n.ID, n.Owner)
}

// Setting is one attribute that shapes the pool.
type Setting struct {
	Name    string
	Value   string // form of the value, for people
	Meaning string
	read    func(text string, s *v1alpha1.AddressPoolSpec) error
}

// Settings lists all, sorted by name. A setting that is left out has the
// default of AddressPool.
func Settings() []Setting {
	return []Setting{
		{"ONELB_AUTO_ASSIGN", "`YES` or `NO`", "`spec.autoAssign`", func(t string, s *v1alpha1.AddressPoolSpec) error {
			b, err := parseBool(t)
			s.AutoAssign = &b
			return err
		}},
		{"ONELB_AVOID_EDGE", "`YES` or `NO`", "`spec.avoidEdgeAddresses`", func(t string, s *v1alpha1.AddressPoolSpec) (err error) {
			s.AvoidEdgeAddresses, err = parseBool(t)
			return err
		}},
		{"ONELB_CHUNK_SIZE", "1 to 256", "`spec.chunkSize`", func(t string, s *v1alpha1.AddressPoolSpec) (err error) {
			s.ChunkSize, err = parseNumber(t, 1, 256)
			return err
		}},
		{"ONELB_DRAINING", "`YES` or `NO`", "`spec.draining`", func(t string, s *v1alpha1.AddressPoolSpec) (err error) {
			s.Draining, err = parseBool(t)
			return err
		}},
		{"ONELB_EXPOSURE", "`L2` or `ROUTER`", "`spec.exposure`; without, `L2`, or `Router` if ONELB_ROUTER is given", func(t string, s *v1alpha1.AddressPoolSpec) error {
			switch strings.ToUpper(t) {
			case "L2":
				s.Exposure = v1alpha1.ExposureL2
			case "ROUTER":
				s.Exposure = v1alpha1.ExposureRouter
			default:
				return errors.New("must be L2 or ROUTER")
			}
			return nil
		}},
		{"ONELB_FORWARD", "`NODEPORT`, `VIP`, `POD` or `ROUTE`", "`spec.router.forward`", func(t string, s *v1alpha1.AddressPoolSpec) error {
			switch strings.ToUpper(t) {
			case "NODEPORT":
				router(s).Forward = v1alpha1.ForwardNodePort
			case "VIP":
				router(s).Forward = v1alpha1.ForwardVIP
			case "POD":
				router(s).Forward = v1alpha1.ForwardPod
			case "ROUTE":
				router(s).Forward = v1alpha1.ForwardRoute
			default:
				return errors.New("must be NODEPORT, VIP, POD or ROUTE")
			}
			return nil
		}},
		{"ONELB_INNER_POOL", "name of an AddressPool", "`spec.router.innerPool`", func(t string, s *v1alpha1.AddressPoolSpec) error {
			router(s).InnerPool = t
			return checkName(t)
		}},
		{"ONELB_PRIORITY", "0 or more", "`spec.priority`", func(t string, s *v1alpha1.AddressPoolSpec) (err error) {
			s.Priority, err = parseNumber(t, 0, 1<<31-1)
			return err
		}},
		{"ONELB_QUARANTINE", "a duration such as `30s`, at most `24h`", "`spec.quarantine`", func(t string, s *v1alpha1.AddressPoolSpec) error {
			d, err := time.ParseDuration(t)
			if err != nil || d < 0 || d > 24*time.Hour {
				return errors.New("must be a duration with a unit, such as 30s, of at most 24h")
			}
			s.Quarantine = &metav1.Duration{Duration: d}
			return nil
		}},
		{"ONELB_RANGES", "`FIRST-LAST`, several with commas between", "`spec.ranges`", func(t string, s *v1alpha1.AddressPoolSpec) (err error) {
			s.Ranges, err = parseRanges(t)
			return err
		}},
		{"ONELB_RESERVE_AHEAD", "0 to 256", "`spec.reserveAhead`", func(t string, s *v1alpha1.AddressPoolSpec) error {
			n, err := parseNumber(t, 0, 256)
			s.ReserveAhead = &n
			return err
		}},
		{"ONELB_ROUTER", "name of a router in the cloud-config", "`spec.router.name`", func(t string, s *v1alpha1.AddressPoolSpec) error {
			router(s).Name = t
			return checkName(t)
		}},
		{"ONELB_SNAT", "`AUTO`, `ALWAYS` or `NEVER`", "`spec.router.snat`", func(t string, s *v1alpha1.AddressPoolSpec) error {
			router(s).SNAT = v1alpha1.SNAT(strings.ToLower(t))
			if !slices.Contains([]v1alpha1.SNAT{v1alpha1.SNATAuto, v1alpha1.SNATAlways, v1alpha1.SNATNever}, router(s).SNAT) {
				return errors.New("must be AUTO, ALWAYS or NEVER")
			}
			return nil
		}},
	}
}

func router(s *v1alpha1.AddressPoolSpec) *v1alpha1.RouterSpec {
	if s.Router == nil {
		s.Router = &v1alpha1.RouterSpec{Forward: v1alpha1.ForwardNodePort, SNAT: v1alpha1.SNATAuto}
	}
	return s.Router
}

// offered reports whether a network makes an offer to the cluster.
func offered(n Network, cluster string) bool {
	if n.Attributes[AttributePool] == "" {
		return false
	}
	clusters, limited := n.Attributes[attributeClusters]
	return !limited || slices.Contains(strings.FieldsFunc(clusters, func(r rune) bool { return r == ',' || r == ' ' }), cluster)
}

// parse makes the spec of a pool that the network offers. All that is wrong is
// in one error.
func parse(n Network) (name string, spec v1alpha1.AddressPoolSpec, err error) {
	name = strings.TrimSpace(n.Attributes[AttributePool])
	id := n.ID
	spec = v1alpha1.AddressPoolSpec{
		Network: v1alpha1.NetworkReference{ID: &id}, AutoAssign: new(true), ChunkSize: 8, ReserveAhead: ptr.To[int32](4),
		Quarantine: &metav1.Duration{Duration: 30 * time.Second},
	}
	var errs []error
	if err := checkName(name); err != nil {
		errs = append(errs, fmt.Errorf("%s %.80q %w", AttributePool, name, err))
	}
	settings := map[string]Setting{}
	for _, s := range Settings() {
		settings[s.Name] = s
	}
	for _, key := range slices.Sorted(maps.Keys(n.Attributes)) {
		text := strings.TrimSpace(n.Attributes[key])
		s, known := settings[key]
		switch {
		case !strings.HasPrefix(key, prefix), key == AttributePool, key == AttributeError, key == attributeClusters:
		case !known:
			errs = append(errs, fmt.Errorf("unknown setting %s: remove it, or use one of %s", key, strings.Join(slices.Sorted(maps.Keys(settings)), ", ")))
		default:
			if err := s.read(text, &spec); err != nil {
				errs = append(errs, fmt.Errorf("%s %.80q %w", key, text, err))
			}
		}
	}
	if len(errs) == 0 {
		errs = append(errs, complete(&spec))
	}
	return name, spec, errors.Join(errs...)
}

// complete settles how the addresses are exposed.
func complete(s *v1alpha1.AddressPoolSpec) error {
	if s.Exposure == "" {
		s.Exposure = v1alpha1.ExposureL2
		if s.Router != nil {
			s.Exposure = v1alpha1.ExposureRouter
		}
	}
	switch {
	case s.Exposure == v1alpha1.ExposureL2 && s.Router != nil:
		return errors.New("ONELB_ROUTER, ONELB_FORWARD, ONELB_INNER_POOL and ONELB_SNAT go with ONELB_EXPOSURE ROUTER")
	case s.Exposure == v1alpha1.ExposureL2:
		return nil
	case s.Router == nil || s.Router.Name == "":
		return errors.New("ONELB_EXPOSURE ROUTER needs ONELB_ROUTER")
	case (s.Router.Forward == v1alpha1.ForwardVIP) != (s.Router.InnerPool != ""):
		return errors.New("ONELB_INNER_POOL is needed with ONELB_FORWARD VIP, and only there")
	case s.Router.Forward == v1alpha1.ForwardRoute && s.Router.SNAT == v1alpha1.SNATAlways:
		return errors.New("ONELB_SNAT ALWAYS needs a router that translates, and with ONELB_FORWARD ROUTE it does not")
	}
	return nil
}

func checkName(text string) error {
	if len(validation.IsDNS1123Label(text)) > 0 {
		return errors.New("must consist of at most 63 lower case letters, digits and '-'")
	}
	return nil
}

func parseBool(text string) (bool, error) {
	switch strings.ToUpper(text) {
	case "YES", "TRUE":
		return true, nil
	case "NO", "FALSE":
		return false, nil
	}
	return false, errors.New("must be YES or NO")
}

func parseNumber(text string, least, most int64) (int32, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("must be a number from %d to %d", least, most)
	}
	return int32(n), nil
}

func parseRanges(text string) ([]v1alpha1.AddressRange, error) {
	var out []v1alpha1.AddressRange
	for part := range strings.SplitSeq(text, ",") {
		first, last, two := strings.Cut(strings.TrimSpace(part), "-")
		start, err1 := netip.ParseAddr(strings.TrimSpace(first))
		end, err2 := netip.ParseAddr(strings.TrimSpace(last))
		if !two || err1 != nil || err2 != nil || start.Is4() != end.Is4() || end.Less(start) || start.Zone() != "" || end.Zone() != "" {
			return nil, errors.New("must be FIRST-LAST with addresses of one family, several with commas between")
		}
		out = append(out, v1alpha1.AddressRange{Start: start.String(), End: end.String()})
	}
	if len(out) > 32 {
		return nil, errors.New("has more than 32 ranges")
	}
	return out, nil
}
