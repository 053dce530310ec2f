NOW=$(date +%s)
curl -X POST "$KALTURA_SERVICE_URL/service/shortlink_shortlink/action/list" \
-d "ks=$KALTURA_KS" \
-d "format=1" \
-d "filter[statusEqual]=2" \
-d "filter[expiresAtLessThanOrEqual]=$NOW" \
-d "filter[expiresAtGreaterThanOrEqual]=1" \
-d "pager[pageSize]=500"
