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
		}, 25 * time.Minute, measurePowerOff},
		{faultRows("kill_restart"), 15 * time.Minute, measureKillRestart},
		{faultRows("kill_forever"), 20 * time.Minute, measureKillForever},
		{faultRows("sigstop"), 20 * time.Minute, measureStop},
		{faultRows("drain"), 20 * time.Minute, measureDrain},
		{faultRows("rolling"), 20 * time.Minute, measureRolling},
		{faultRows("api_down"), 40 * time.Minute, measureAPIDown},
		{[]column{{"failover_delay_loss_moves", "moves in 10 min"}}, 15 * time.Minute, measureDelayLoss},
		{[]column{{"failover_starved_moves", "moves in 10 min"}}, 30 * time.Minute, measureStarved},
		{[]column{{"failover_flapping_moves", "moves in 5 min"}}, 10 * time.Minute, measureFlapping},
		{[]column{
			{"bgp_spread", "worst node's share over the mean"}, {"bgp_restart", "ms"}, {"bgp_failover_hold", "ms"}, {"bgp_failover_bfd", "ms"},
		}, 40 * time.Minute, measureBGP},
		{[]column{{"bgp_converge_10000", "s"}, {"bgp_one_change", "ms"}, {"bgp_rss_10000", "MiB"}}, 20 * time.Minute, measureBGPScale},
		{[]column{{"router_restart_broken_connections", "count"}}, 10 * time.Minute, measureRouterRestart},
		{[]column{{"router_apply_10000", "ms"}, {"router_add_one", "ms"}, {"router_add_one_push", "ms"}, {"router_rss_10000x10", "MiB"}, {"router_edit_broken_connections", "count"}}, 15 * time.Minute, measureRouterApply},
		{deathRows(), 40 * time.Minute, measureDeath},
		{[]column{{"router_failover", "ms"}, {"router_failover_broken_connections", "count"}}, 15 * time.Minute, measurePair},
		{pathRows(), 10 * time.Minute, measurePaths},
		{[]column{
			{"gossip_bytes_per_node_10", "B/s"}, {"gossip_bytes_per_node_100", "B/s"},
		}, 20 * time.Minute, measureGossip},
		{append([]column{{"agent_rss_1000", "MiB"}, {"agent_cpu_1000", "% of a core"}}, lossRows()...), 40 * time.Minute, measureThousand},
		{[]column{{"burst_500_address", "ms"}, {"burst_500_floor", "ms"}}, 15 * time.Minute, measureBurst500},
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
