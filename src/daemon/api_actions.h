/* SPDX-License-Identifier: Apache-2.0 */
/* Routes that do something, or must ask the issuer. */
#ifndef X0_DAEMON_API_ACTIONS_H
#define X0_DAEMON_API_ACTIONS_H

#include "daemon/control.h"

void action_ping(struct control *c, struct api_request *r);  /* {"peer"} -> {"rtt_ms"} */
void action_rekey(struct control *c, struct api_request *r); /* {"peer"} */
void action_renew(struct control *c, struct api_request *r);
void action_token(struct control *c, struct api_request *r);	  /* {"name","ttl","ephemeral","addresses"} */
void action_revoke(struct control *c, struct api_request *r);	  /* {"name"} or {"id"} */
void action_remove(struct control *c, struct api_request *r);	  /* {"name"} */
void action_add_issuer(struct control *c, struct api_request *r); /* {"roots": PEM} */
void action_roots(struct control *c, struct api_request *r);
void action_nodes(struct control *c, struct api_request *r);
void action_config(struct control *c, struct api_request *r); /* {"text","confirm_s"} */
void action_confirm(struct control *c, struct api_request *r);
void action_shutdown(struct control *c, struct api_request *r);

#endif
