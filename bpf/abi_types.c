// SPDX-License-Identifier: GPL-2.0-only
/* One variable of every shared type: compiled for its BTF alone, from which
 * scripts/generate_abi.py writes src/xlvs/kernel/abi.py. */
#include "abi.h"

struct abi_types {
	enum abi abi;
	enum flow_apart flow_apart;
	enum connection_phase connection_phase;
	enum connection_flag connection_flag;
	enum connection_method connection_method;
	enum connection_control connection_control;
	enum service_flag service_flag;
	enum scheduler scheduler;
	enum destination_flag destination_flag;
	enum forwarding_method forwarding_method;
	enum reach_flag reach_flag;
	enum overload_flag overload_flag;
	enum tunnel_kind tunnel_kind;
	enum template_state template_state;
	enum free_state free_state;
	enum sysctl sysctl;
	enum tunnel_checksum tunnel_checksum;
	enum tunnel_size tunnel_size;
	enum interface_flag interface_flag;
	struct flow flow;
	struct connection connection;
	struct call_id_key call_id_key;
	struct call_id call_id;
	struct service_key service_key;
	struct service service;
	struct pick pick;
	struct destination destination;
	struct traffic traffic;
	struct estimate estimate;
	struct port_range port_range;
	struct mark_rule mark_rule;
	struct interface interface;
	struct sender sender;
	struct limits limits;
	struct settings settings;
	struct events events;
} abi_types;
