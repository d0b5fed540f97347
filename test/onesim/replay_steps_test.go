package onesim

import "time"

const (
	asAdmin  = "oneadmin:opennebula"
	asK8s    = "k8s:k8spass123"
	asNobody = "nobody:nobodypass123"
)

// inFlight are the recordings for which a driver had not answered yet, with what it was doing. Before all others the
// recorder waited, or the driver was faster.
var inFlight = map[int]string{
	12: "VM 0 is pending", 14: "VM 1 is pending", 16: "VM 2 is pending", 19: "VMs 3 and 4 are pending", 20: "VM 3 is pending",
	21:  "VM 4 is pending",
	116: "network 4 is being deleted",
	132: "reservation 7 is being made",
	198: "reservation 8 is being deleted",
	224: "network 23 is being made",
	314: "VM 0 attaches a NIC", 315: "VM 0 attaches a NIC",
	341: "VM 1 attaches an alias with a slow driver", 342: "the same", 343: "the same", 344: "the same", 345: "the same", 346: "the same",
	359: "VM 2 powers off",
	413: "VM 8 is pending",
	421: "VM 8 attaches a NIC",
	459: "VM 9 terminates", 460: "the same", 461: "the same", 462: "the same",
}

// steps are calls that the recorder sent without recording them, or that the drivers did, as they follow from the
// recordings: each runs before the recording of that number.
var steps = map[int]func(*replayer){
	22: func(r *replayer) { // the users, and the nodes given to one of them
		r.call(asAdmin, "one.user.allocate", "k8s", "k8spass123", "core")
		r.call(asAdmin, "one.user.allocate", "nobody", "nobodypass123", "core")
		for vm := range 3 {
			r.call(asAdmin, "one.vm.chown", vm, 2, 1)
		}
	},
	131: func(r *replayer) { // clean up after holds and the SHARED range
		r.releaseAll(1)
		r.releaseAll(2)
		r.releaseAll(3)
		r.detach(asAdmin, 0, 1)
		r.detach(asAdmin, 1, 1)
		r.call(asAdmin, "one.vn.delete", 5)
		r.call(asAdmin, "one.vn.delete", 6)
	},
	195: func(r *replayer) { r.detach(asK8s, 0, 1) },
	201: func(r *replayer) { r.call(asAdmin, "one.vn.hold", 1, `LEASES=[IP="10.12.0.212"]`) },
	202: func(r *replayer) { r.call(asAdmin, "one.vn.release", 1, `LEASES=[IP="10.12.0.212"]`) },
	212: func(r *replayer) { // clean up after reservations
		for _, id := range []int{9, 12, 13, 14, 15, 18, 20} {
			r.call(asAdmin, "one.vn.delete", id)
		}
	},
	223: func(r *replayer) { // clean up the network with filters and the one in ERROR
		r.detach(asAdmin, 2, 1)
		r.releaseAll(22)
		r.call(asAdmin, "one.vn.delete", 21)
		r.call(asAdmin, "one.vn.delete", 22)
	},
	230: func(r *replayer) { r.call(asAdmin, "one.vn.hold", 23, `LEASES=[IP="10.55.0.8"]`) },
	256: func(r *replayer) {
		r.call(asAdmin, "one.vn.allocate", `NAME="parent" VN_MAD="dummy" BRIDGE="bp" GATEWAY="10.77.0.1"
			AR=[TYPE="IP4",IP="10.77.0.10",SIZE="10",POOL_TAG="p"]`, -1)
	},
	258: func(r *replayer) { r.call(asK8s, "one.vn.hold", 25, `LEASES=[IP="10.77.0.10"]`) },
	271: func(r *replayer) { r.releaseAll(25) },
	318: func(r *replayer) { r.call(asAdmin, "one.vn.hold", 1, `LEASES=[IP="10.12.0.219"]`) },
	338: func(r *replayer) { r.failDriver("attachnic", 1) },
	347: func(r *replayer) {
		r.detach(asK8s, 1, 1)
		r.call(asAdmin, "one.vn.release", 1, `LEASES=[IP="10.12.0.219"]`)
	},
	354: func(r *replayer) {
		for _, nic := range []int{1, 2, 5, 6, 7} {
			r.detach(asAdmin, 0, nic)
		}
	},
	392: func(r *replayer) {
		r.failDriver("deploy", 7)
		r.call(asAdmin, "one.vm.deploy", 7, 0, false, 0)
	},
	409: func(r *replayer) { r.call(asAdmin, "one.vn.hold", 1, `LEASES=[IP="10.12.0.219"]`) },
	410: func(r *replayer) { r.call(asAdmin, "one.vn.release", 1, `LEASES=[IP="10.12.0.219"]`) },
	412: func(r *replayer) { r.call(asAdmin, "one.template.chmod", 1, 1, 1, 0, 1, 0, 0, 1, 0, 0) },
	414: func(r *replayer) { r.call(asAdmin, "one.vm.deploy", 8, 0, false, 0) },
	523: func(r *replayer) { r.expireLastToken("k8s") },
	641: func(r *replayer) {
		r.call(asNobody, "one.vn.delete", 29)
		r.call(asAdmin, "one.vn.release", 1, `LEASES=[IP="10.12.0.214"]`)
	},
}

// detach waits for the driver before and after.
func (r *replayer) detach(session string, vm, nic int) {
	r.t.Helper()
	r.sim.Settle()
	r.call(session, "one.vm.detachnic", vm, nic)
	r.sim.Settle()
}

func (r *replayer) releaseAll(vnet int) {
	r.t.Helper()
	snap, err := r.sim.VNet(vnet)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, ar := range snap.Ranges {
		for _, l := range ar.Leases {
			if l.Owner == "hold" {
				r.call(asAdmin, "one.vn.release", vnet, `LEASES=[MAC="`+l.MAC+`"]`)
			}
		}
	}
}

func (r *replayer) failDriver(action string, vm int) {
	r.t.Helper()
	if err := r.sim.FailDriver(action, vm, 1); err != nil {
		r.t.Fatal(err)
	}
}

// expireLastToken lets the second pass that the recorder waited for the token of one second to expire.
func (r *replayer) expireLastToken(name string) {
	r.sim.mu.Lock()
	defer r.sim.mu.Unlock()
	u := r.sim.userNamed(name)
	u.tokens[len(u.tokens)-1].expires = time.Now()
}
