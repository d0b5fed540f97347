package one

import "testing"

// TestAdmits: rules of several groups add up, and one that makes no sense lets
// nothing pass but does not hide the machine.
func TestAdmits(t *testing.T) {
	vm, err := parseVM([]byte(`<VM><ID>1</ID><STATE>3</STATE><LCM_STATE>3</LCM_STATE><TEMPLATE>
		<NIC><NIC_ID>0</NIC_ID><SECURITY_GROUPS>100, 101</SECURITY_GROUPS></NIC>
		<NIC><NIC_ID>1</NIC_ID></NIC>
		<NIC><NIC_ID>2</NIC_ID><SECURITY_GROUPS>102</SECURITY_GROUPS></NIC>
		<SECURITY_GROUP_RULE><PROTOCOL>TCP</PROTOCOL><RULE_TYPE>inbound</RULE_TYPE><RANGE>22,80:90, 443</RANGE><SECURITY_GROUP_ID>100</SECURITY_GROUP_ID></SECURITY_GROUP_RULE>
		<SECURITY_GROUP_RULE><PROTOCOL>udp</PROTOCOL><RULE_TYPE>INBOUND</RULE_TYPE><SECURITY_GROUP_ID>101</SECURITY_GROUP_ID></SECURITY_GROUP_RULE>
		<SECURITY_GROUP_RULE><PROTOCOL>ALL</PROTOCOL><RULE_TYPE>outbound</RULE_TYPE><SECURITY_GROUP_ID>100</SECURITY_GROUP_ID></SECURITY_GROUP_RULE>
		<SECURITY_GROUP_RULE><PROTOCOL>TCP</PROTOCOL><RULE_TYPE>inbound</RULE_TYPE><RANGE>8080</RANGE><IP>10.0.0.0</IP><SIZE>8</SIZE><SECURITY_GROUP_ID>100</SECURITY_GROUP_ID></SECURITY_GROUP_RULE>
		<SECURITY_GROUP_RULE><PROTOCOL>TCP</PROTOCOL><RULE_TYPE>inbound</RULE_TYPE><RANGE>http</RANGE><SECURITY_GROUP_ID>102</SECURITY_GROUP_ID></SECURITY_GROUP_RULE>
	</TEMPLATE></VM>`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		nic      int
		protocol string
		port     int
		want     bool
	}{
		{0, "TCP", 22, true}, {0, "TCP", 85, true}, {0, "TCP", 443, true}, {0, "TCP", 91, false}, {0, "TCP", 8080, false},
		{0, "UDP", 91, true}, {0, "SCTP", 22, false}, {1, "TCP", 91, true}, {2, "TCP", 80, false}, {2, "UDP", 80, false},
	} {
		if got := vm.Admits(vm.NICs[tt.nic], tt.protocol, tt.port); got != tt.want {
			t.Errorf("NIC %d, %d/%s: %v", tt.nic, tt.port, tt.protocol, got)
		}
	}
}
