curl -X POST "$KALTURA_SERVICE_URL/service/shortlink_shortlink/action/delete" \
-d "ks=$KALTURA_KS" \
-d "format=1" \
-d "id=$SHORT_LINK_ID"
