package bench

import "time"

// measurements are all there are, in the order in which they run: the ones
// that share a lab stand together.
func measurements() []measurement {
	return []measurement{
		{[]column{{"demo_first_answer", "s"}}, time.Hour, measureDemo}, // the first run builds Kubernetes
		{[]column{{"service_address", "ms"}, {"service_address_floor", "ms"}}, 5 * time.Minute, measureAddress},
		{[]column{{"service_first_answer_l2", "ms"}}, 5 * time.Minute, measureFirstAnswerL2},
		{[]column{{"service_first_answer_router", "ms"}}, 5 * time.Minute, measureFirstAnswerRouter},
		{[]column{{"service_first_answer_router_cold", "ms"}}, 5 * time.Minute, measureFirstAnswerRouterCold},
		{[]column{{"ipam_oned_calls_critical_path", "calls per Service"}}, 5 * time.Minute, measureCriticalPath},
		{[]column{{"nodes_3_pool_reads", "reads per 5 min"}, {"nodes_100_pool_reads", "reads per 5 min"}}, 8 * time.Minute, measureNodes},
		{[]column{
			{"failover_poweroff", "ms"}, {"who_has_gap_poweroff", "ms"}, {"dual_answer_poweroff", "ms"},
			{"failover_return", "ms"}, {"dual_answer_return", "ms"},
		}, 15 * time.Minute, measurePowerOff},
		{[]column{
			{"failover_kill_restart", "ms"}, {"who_has_gap_kill_restart", "ms"}, {"dual_answer_kill_restart", "ms"},
		}, 5 * time.Minute, measureKillRestart},
		{[]column{{"router_apply_10000", "ms"}, {"router_add_one", "ms"}}, 5 * time.Minute, measureRouterApply},
		{[]column{{"burst_500_address", "ms"}}, 10 * time.Minute, measureBurst500},
		{[]column{
			{"burst_1000_address", "ms"}, {"burst_1000_lag", "s"}, {"ipam_oned_calls_1000", "calls per Service"},
		}, 10 * time.Minute, measureBurst1000},
		{[]column{
			{"burst_10000_lag", "s"}, {"ipam_oned_calls_10000", "calls per Service"},
			{"ccm_rss_10000", "MiB"}, {"ccm_restart_10000_oned_calls", "calls"},
		}, 40 * time.Minute, measureScale},
		{[]column{{"crash_points", "count"}, {"crash_duplicates", "count"}, {"crash_leaks", "count"}}, time.Hour, measureCrash},
	}
}
