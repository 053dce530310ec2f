curl -X POST "$KALTURA_SERVICE_URL/service/shortlink_shortlink/action/list" \
-d "ks=$KALTURA_KS" \
-d "format=1" \
-d "filter[statusEqual]=2" \
-d "filter[orderBy]=-createdAt" \
-d "pager[pageSize]=10" \
-d "pager[pageIndex]=1"
