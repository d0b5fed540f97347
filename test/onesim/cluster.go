package onesim

import "slices"

// cluster groups hosts, networks and datastores; all are in the default one.
type cluster struct {
	object
	template *template
}

// datastore is only listed; there are no images.
type datastore struct {
	object
	typ      int
	monitor  [3]int // total, free, used MiB
	template *template
}

func (s *Sim) installDatastores() {
	for _, d := range []struct {
		name     string
		typ      int
		template string
	}{
		{"system", 1, `ALLOW_ORPHANS="NO" DISK_TYPE="FILE" DS_LIVE_MIGRATE="YES" DS_MIGRATE="YES" DS_MIGRATE_SNAP="YES"
			PERSISTENT_SNAPSHOTS="YES" RESTRICTED_DIRS="/" SAFE_DIRS="/var/tmp" SHARED="NO" TM_MAD="local" TYPE="SYSTEM_DS"`},
		{"default", 0, `ALLOW_ORPHANS="NO" CLONE_TARGET="SYSTEM" DISK_TYPE="FILE" DS_MAD="fs" LN_TARGET="NONE"
			PERSISTENT_SNAPSHOTS="YES" RESTRICTED_DIRS="/" SAFE_DIRS="/var/tmp" TM_MAD="local" TYPE="IMAGE_DS"`},
		{"files", 2, `ALLOW_ORPHANS="FORMAT" CLONE_TARGET="SYSTEM" DS_MAD="fs" LN_TARGET="SYSTEM" PERSISTENT_SNAPSHOTS="YES"
			RESTRICTED_DIRS="/" SAFE_DIRS="/var/tmp" TM_MAD="local" TYPE="FILE_DS"`},
	} {
		s.datastores.insert(&datastore{
			object: object{kind: kindDatastore, id: s.datastores.take(), name: d.name, perms: 0o640}, typ: d.typ, template: mustTemplate(d.template),
		})
	}
	s.datastores.byID[0].monitor = [3]int{4796800, 3333260, 1429920}
	s.datastores.byID[1].monitor = [3]int{datastoreTotal, datastoreTotal, datastoreUsed}
	s.datastores.next = 100
}

func clusterMethods() []method {
	return []method{
		{name: "one.cluster.info", params: "i|b", run: clusterInfo},
		{name: "one.clusterpool.info", run: clusterPoolInfo},
		{name: "one.datastore.update", params: "is|i", write: true, run: datastoreUpdate},
		{name: "one.datastorepool.info", run: datastorePoolInfo},
		{name: "one.secgrouppool.info", params: "iii", run: secGroupPoolInfo},
	}
}

func (s *Sim) writeCluster(b *xmlOut, c *cluster) {
	b.open("CLUSTER")
	b.int("ID", c.id)
	b.text("NAME", c.name)
	b.ids("HOSTS", s.hosts.sorted())
	b.ids("DATASTORES", s.datastores.sorted())
	b.ids("VNETS", s.vnets.sorted())
	c.template.writeXML(b, "TEMPLATE")
	b.close("CLUSTER")
}

func clusterInfo(c *call) (any, error) {
	cl := c.clusters.byID[c.int(0)]
	if cl == nil {
		return nil, noExists(kindCluster, c.int(0))
	}
	if err := c.read(&cl.object); err != nil {
		return nil, err
	}
	var b xmlOut
	c.writeCluster(&b, cl)
	return b.String(), nil
}

func clusterPoolInfo(c *call) (any, error) {
	var b xmlOut
	b.open("CLUSTER_POOL")
	for _, id := range c.clusters.sorted() {
		if cl := c.clusters.byID[id]; c.may(opUse, &cl.object) {
			c.writeCluster(&b, cl)
		}
	}
	b.close("CLUSTER_POOL")
	return b.String(), nil
}

func datastoreUpdate(c *call) (any, error) {
	d := c.datastores.byID[c.int(0)]
	if d == nil {
		return nil, noExists(kindDatastore, c.int(0))
	}
	if err := c.authorize(needs(opManage, &d.object)); err != nil {
		return nil, err
	}
	t, err := c.updated(d.template, c.str(1), c.int(2), "")
	if err != nil {
		return nil, err
	}
	d.template = t
	return d.id, nil
}

func datastorePoolInfo(c *call) (any, error) {
	var b xmlOut
	b.open("DATASTORE_POOL")
	ids := c.datastores.sorted()
	slices.Reverse(ids)
	for _, id := range ids {
		d := c.datastores.byID[id]
		if !c.may(opUse, &d.object) {
			continue
		}
		b.open("DATASTORE")
		c.writeHead(&b, &d.object)
		d.writePerms(&b)
		mad := d.template.get("DS_MAD")
		if mad == "" {
			mad = "-"
		}
		b.cdata("DS_MAD", mad)
		b.cdata("TM_MAD", d.template.get("TM_MAD"))
		b.cdata("BASE_PATH", "/var/lib/one/datastores/"+itoa(id))
		b.int("TYPE", d.typ)
		b.int("DISK_TYPE", 0)
		b.int("STATE", 0)
		b.ids("CLUSTERS", []int{0})
		b.int("TOTAL_MB", d.monitor[0])
		b.int("FREE_MB", d.monitor[1])
		b.int("USED_MB", d.monitor[2])
		b.ids("IMAGES", nil)
		d.template.writeXML(&b, "TEMPLATE")
		b.close("DATASTORE")
	}
	b.close("DATASTORE_POOL")
	return b.String(), nil
}

const defaultSecGroupText = "The default security group is added to every network. Use it to add default filter rules for " +
	"your networks. You may remove this security group from any network by updating its properties."

// secGroupPoolInfo knows the default security group only.
func secGroupPoolInfo(c *call) (any, error) {
	var members []int
	for _, id := range c.vms.sorted() {
		if v := c.vms.byID[id]; v.state != stateDone && slices.ContainsFunc(v.nics, func(n *nic) bool {
			return n.attrs.get("SECURITY_GROUPS") != ""
		}) {
			members = append(members, id)
		}
	}
	group := object{kind: &kind{name: "SECGROUP"}, name: "default", perms: 0o744}
	var b xmlOut
	b.open("SECURITY_GROUP_POOL")
	b.open("SECURITY_GROUP")
	c.writeHead(&b, &group)
	group.writePerms(&b)
	b.ids("UPDATED_VMS", members)
	b.ids("OUTDATED_VMS", nil)
	b.ids("UPDATING_VMS", nil)
	b.ids("ERROR_VMS", nil)
	b.open("TEMPLATE")
	b.cdata("DESCRIPTION", defaultSecGroupText)
	for _, direction := range []string{"OUTBOUND", "INBOUND"} {
		b.vector("RULE", []pair{{"PROTOCOL", "ALL"}, {"RULE_TYPE", direction}})
	}
	b.close("TEMPLATE")
	b.close("SECURITY_GROUP")
	b.close("SECURITY_GROUP_POOL")
	return b.String(), nil
}
