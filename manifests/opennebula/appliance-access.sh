#!/bin/sh
# Lets the OpenNebula user of a cluster program a stock virtual router: USE on the
# virtual router, USE and MANAGE on its machines. Run as oneadmin, and again when
# the virtual router has got another machine.
#
#   ./appliance-access.sh USER VIRTUAL-ROUTER
#   ./appliance-access.sh k8s-lab edge
set -eu

if [ $# -ne 2 ]; then
    echo "usage: $0 USER VIRTUAL-ROUTER" >&2
    exit 2
fi

uid=$(oneuser show "$1" | sed -n 's/^ID *: *//p')
router=$(onevrouter show "$2" --xml | tr -d ' \n')
vr=$(printf '%s' "$router" | sed -n 's/^.*<VROUTER><ID>\([0-9]*\)<.*$/\1/p')
vms=$(printf '%s' "$router" | sed -n 's/^.*<VMS>\(.*\)<\/VMS>.*$/\1/p' | sed 's/<ID>//g; s/<\/ID>/ /g')

# oneacl says so when a rule is there already.
oneacl create "#$uid VROUTER/#$vr USE" || echo "not made: USE on virtual router $vr"
for vm in $vms; do
    oneacl create "#$uid VM/#$vm USE+MANAGE" || echo "not made: USE+MANAGE on machine $vm"
done
